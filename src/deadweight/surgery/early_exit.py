"""Leaving a model early: the first blocks, the model's own final norm, and a readout of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from deadweight.anatomy import anatomy
from deadweight.errors import InputError, SurgeryError
from deadweight.evaluation import logits_of
from deadweight.models.unwrap import unwrapped
from deadweight.surgery.blocks import drop_blocks
from deadweight.surgery.calibration import calibration, evaluating
from deadweight.surgery.log import copy_unless_inplace, record, surgeries

Module = TypeVar("Module", bound=nn.Module)

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_LOG = "_deadweight_surgeries"


def early_exit(
    model: Module,
    layer: int,
    *,
    classes: int | None = None,
    readout: str | None = "ridge",
    batches: Iterable[Any] | None = None,
    inplace: bool = False,
) -> Module:
    """Keep the first `layer` blocks of a vision transformer and give it a readout of its own there.

    Parameters
    ----------
    layer:
        Blocks to keep, e.g. ``profile.useful_depth()``.
    classes:
        Classes the readout tells apart; by default the head's.
    readout:
        ``"ridge"``: fitted in closed form to `batches`, features standardised, one-hot targets, λ chosen on every
        fourth item. None: the weights of the head as it is.
    batches:
        ``(inputs, labels)`` pairs, labels integers below `classes`.

    Returns
    -------
    The shorter model, an ordinary one: it saves, loads and runs as any other.

    Raises
    ------
    SurgeryError
        A language model, a model without a linear head, or `layer` out of range.
    InputError
        No batches to fit the readout to, or labels that do not fit.

    Examples
    --------
    >>> import deadweight as dw, torch
    >>> images = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> labels = torch.arange(64) % 4
    >>> short = dw.early_exit(dw.load("embedded:digits-vit"), 3, classes=4, batches=[(images, labels)])
    >>> len(short.blocks), short(images[:2]).shape
    (3, torch.Size([2, 4]))
    """
    model = unwrapped(model)
    parts = anatomy(model)
    name = _head_name(model)
    if not 1 <= layer <= parts.depth:
        raise SurgeryError(
            f"an exit after block {layer} of {parts.depth}", expected=f"a layer from 1 to {parts.depth}",
            cure="profile.useful_depth() finds one",
        )  # fmt: skip
    if readout not in ("ridge", None):
        raise InputError(f"readout={readout!r}", expected="'ridge' or None")
    pairs = _pairs(batches, classes or _linear(model, name).out_features) if readout is not None else []
    before = surgeries(model)
    model = copy_unless_inplace(model, inplace)
    if layer < parts.depth:
        drop_blocks(model, range(layer, parts.depth), inplace=True)
        setattr(model, _LOG, before)  # one surgery: the cut is a part of it
    wanted = classes or _linear(model, name).out_features
    others = _other_heads(model, name)
    if wanted != _linear(model, name).out_features:
        for one in (name, *others):
            _replace(model, one, wanted)
        _note_classes(model, wanted)
    if pairs:
        _fit(model, _linear(model, name), pairs, wanted)
        _read_alone(model, name, others, pairs[0][0])
    record(model, "early_exit", layer=layer, classes=wanted, readout=readout)
    return model


def _head_name(model: nn.Module) -> str:
    """Path of the linear layer that makes the logits."""
    parts = anatomy(model)
    found = [
        name for name, part in model.named_modules()
        if isinstance(part, nn.Linear) and parts.head is not None and any(part is one for one in parts.head.modules())
    ]  # fmt: skip
    if parts.kind != "vision" or not found:
        what = "is a language model" if parts.kind != "vision" else "has no linear head"
        raise SurgeryError(
            f"this {type(model).__name__} {what}",
            expected="a vision transformer with a linear head",
            cure="drop_blocks shortens any model",
        )
    last: str = found[-1]
    return last


def _other_heads(model: nn.Module, name: str) -> list[str]:
    """Paths of further layers that make logits beside the readout: of a distilled model, whose heads are averaged."""
    parts, own = anatomy(model), _linear(model, name)
    inside = {id(module) for block in parts.blocks for module in block.module.modules()}
    return [
        path for path, part in model.named_modules()
        if isinstance(part, nn.Linear) and part is not own and id(part) not in inside
        and part.weight.shape == own.weight.shape and re.search(r"head|classifier|dist", path)
        and not any(part is one for one in parts.embedding.modules())
    ]  # fmt: skip


def _replace(model: nn.Module, name: str, classes: int) -> None:
    old = _linear(model, name)
    owner, _, leaf = name.rpartition(".")
    fresh = nn.Linear(old.in_features, classes, device=old.weight.device, dtype=old.weight.dtype)
    setattr(model.get_submodule(owner), leaf, fresh)


@torch.no_grad()
def _read_alone(model: nn.Module, name: str, others: Sequence[str], example: Any) -> None:
    """Let the model return what its readout says: other heads say nothing, and their share of a mean is made up for.

    Raises :class:`SurgeryError` where the model does something else with its readout.
    """
    head = _linear(model, name)
    for other in others:
        for weight in _linear(model, other).parameters():
            weight.zero_()
    said: list[Tensor] = []
    handle = head.register_forward_hook(lambda module, args, output: said.append(output))
    try:
        with evaluating(model):
            returned = logits_of(next(iter(calibration(model, [example], "early_exit"))).call(model)).double()
    finally:
        handle.remove()
    spoken = said[0].double().reshape(returned.shape)
    share = float((returned * spoken).sum() / spoken.square().sum().clamp(min=1e-300))
    if share <= 0 or not torch.allclose(returned, share * spoken, atol=1e-3 * float(spoken.abs().max())):
        raise SurgeryError(
            f"this {type(model).__name__} does not return what its readout {name} says",
            expected="a model whose logits are its head's",
            cure="readout=None keeps the heads as they are",
        )
    for weight in head.parameters():
        weight.div_(share)


def _linear(model: nn.Module, name: str) -> nn.Linear:
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)  # as it was found
    return layer


def _note_classes(model: nn.Module, classes: int) -> None:
    """What the model says about its classes is made true."""
    if isinstance(getattr(model, "num_classes", None), int):
        model.num_classes = classes  # type: ignore[assignment]  # a plain attribute of timm's models
    config: Any = getattr(model, "config", None)
    if hasattr(config, "id2label"):
        config.num_labels = classes
        model.num_labels = classes  # type: ignore[assignment]  # a plain attribute of transformers' models


def _pairs(batches: Iterable[Any] | None, classes: int) -> list[tuple[Any, Tensor]]:
    """(inputs, labels) of every batch."""
    pairs = []
    for number, batch in enumerate(batches or ()):
        if not isinstance(batch, (tuple, list)) or len(batch) < 2:
            raise InputError(
                f"batch {number} holds no labels", expected="(inputs, labels): a readout is fitted to them"
            )
        labels = torch.as_tensor(batch[1])
        if labels.dim() != 1 or labels.is_floating_point() or int(labels.min()) < 0 or int(labels.max()) >= classes:
            raise InputError(
                f"labels of batch {number} go from {labels.min()} to {labels.max()}",
                expected=f"one integer an input, 0 to {classes - 1}",
                cure="say how many classes there are with classes=…",
            )
        pairs.append((batch[0], labels))
    if not pairs:
        raise InputError(
            "an early exit without batches",
            expected="labelled inputs to fit its readout to: batches=[(images, labels), …]",
            cure="readout=None keeps the head's own weights",
        )
    return pairs


def _fit(model: nn.Module, head: nn.Linear, pairs: Sequence[tuple[Any, Tensor]], classes: int) -> None:
    """Set the head's weights to a ridge fitted to what it is given."""
    given: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda module, args: given.append(args[0].detach().double().cpu()))
    try:
        with evaluating(model):
            for inputs in calibration(model, [inputs for inputs, _ in pairs], "early_exit"):
                inputs.call(model)
    finally:
        handle.remove()
    features_BF = torch.cat([part.reshape(-1, part.shape[-1]) for part in given])
    labels_B = torch.cat([labels for _, labels in pairs])
    held = torch.arange(len(labels_B)) % 4 == 3
    penalty = PENALTIES[1]
    if held.any():

        def right(tried: float) -> float:
            weight, bias = ridge_readout(features_BF[~held], labels_B[~held], classes, tried)
            return float(((features_BF[held] @ weight.T + bias).argmax(1) == labels_B[held]).double().mean())

        penalty = max(PENALTIES, key=right)
    weight_CF, bias_C = ridge_readout(features_BF, labels_B, classes, penalty)
    with torch.no_grad():
        head.weight.copy_(weight_CF)
        if head.bias is None:
            head.bias = nn.Parameter(torch.zeros(classes, device=head.weight.device, dtype=head.weight.dtype))
        head.bias.copy_(bias_C)


def ridge_readout(features_BF: Tensor, labels_B: Tensor, classes: int, penalty: float) -> tuple[Tensor, Tensor]:
    """(C, F) weights and (C,) bias of one-hot ridge regression; features standardised, λ = penalty · tr(G)/F."""
    mean, spread = features_BF.mean(0), features_BF.std(0, unbiased=False)
    inverse = torch.where(spread > 1e-6 * mean.abs(), 1 / spread, 0.0)
    inputs = (features_BF - mean) * inverse
    targets = nn.functional.one_hot(labels_B, classes).double()
    gram = inputs.T @ inputs
    gram.diagonal().add_(max(penalty * float(gram.trace()) / len(gram), 1e-12))
    weights = torch.linalg.solve(gram, inputs.T @ (targets - targets.mean(0))) * inverse[:, None]
    return weights.T, targets.mean(0) - mean @ weights
