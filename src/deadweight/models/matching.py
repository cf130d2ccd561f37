"""Whether the tensors of a checkpoint are those of the model: prefixes of wrappers understood, the rest refused."""

from __future__ import annotations

import warnings
from collections.abc import Collection

from deadweight.errors import SourceError

# What torch.compile, FSDP and activation checkpointing put into the names, anywhere; data parallelism at the front.
INSIDE = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
FRONT = "module"
_NAMED = 4  # keys that an error names


def plain_key(name: str) -> str:
    """A parameter's name without what wrappers put into it.

    >>> plain_key("module._orig_mod.layers.0._checkpoint_wrapped_module.mlp.weight")
    'layers.0.mlp.weight'
    """
    parts = [part for part in name.split(".") if part not in INSIDE]
    while len(parts) > 1 and parts[0] == FRONT:
        parts = parts[1:]
    return ".".join(parts)


def require_match(
    text: str,
    *,
    missing: Collection[str],
    unexpected: Collection[str] = (),
    shapes: Collection[str] = (),
    total: int,
    strict: bool = True,
    hint: str = "",
) -> None:
    """Refuse a checkpoint whose tensors are not the model's; every kind of mismatch is counted and named.

    Parameters
    ----------
    text:
        The source, as it was given.
    missing, unexpected, shapes:
        Tensors of the model that the checkpoint lacks, tensors of the checkpoint that have no place in the model, and
        tensors that differ in shape.
    total:
        Tensors of the model.
    strict:
        False: what does not match is left as it was built, at random, and a warning says so.
    hint:
        What is likely to be the cause.

    Raises
    ------
    SourceError
        Something does not match, and `strict`.
    """
    said = [
        f"{len(missing)} of the model's {total} tensors are not in the checkpoint ({_some(missing)})" * bool(missing),
        f"{len(unexpected)} of the checkpoint's have no place in the model ({_some(unexpected)})" * bool(unexpected),
        f"{len(shapes)} differ in shape ({_some(shapes)})" * bool(shapes),
    ]
    told = "; ".join(part for part in said if part)
    if not told:
        return
    if not strict:
        warnings.warn(f"{text}: {told}; what does not match is left at random", UserWarning, stacklevel=3)
        return
    raise SourceError(
        f"{text!r}: {told}",
        expected="the tensors of this model, all of them",
        cure=(f"{hint}; " if hint else "")
        + "give the checkpoint of this architecture; with ?strict=false what matches is loaded and the rest is random",
    )


def _some(names: Collection[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:_NAMED]) + (", …" if len(ordered) > _NAMED else "")


__all__ = ["FRONT", "INSIDE", "plain_key", "require_match"]
