"""The model card of a saved model, in Hugging Face's format: what it is, what was done to it, how to load it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from torch import nn

_KERNELS = {"eager", "sdpa", "flash"}  # swapping among these changes how attention is computed, not what


def card(module: nn.Module, manifest: Mapping[str, Any], *, expanded: bool) -> str:
    """``README.md`` of a folder that ``dw.save`` writes.

    Parameters
    ----------
    manifest:
        What ``deadweight.json`` holds: class, origin, surgeries, aliases.
    expanded:
        Shared tensors were written once per name, and the config beside them, for other tools.
    """
    alone = expanded and stands_alone(module, manifest["surgeries"])
    origin = (manifest["origin"] or {}).get("source", "")
    front: dict[str, Any] = {
        "library_name": "transformers" if alone else "deadweight",
        "tags": ["deadweight", *dict.fromkeys(entry["name"].replace("_", "-") for entry in manifest["surgeries"])],
    }
    if origin.startswith("hf:") and "/" in origin:
        front["base_model"] = origin.removeprefix("hf:").split("@")[0]
    name = origin or str(manifest["class"]).rpartition(".")[2]
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
        f"# {name}, made lighter with deadweight" if manifest["surgeries"] else f"# {name}, saved with deadweight",
        f"{sum(p.numel() for p in module.parameters()):,} parameters, a shared one counted once.",
        "## What was done\n\n" + (_log(manifest["surgeries"]) or "Nothing: these are the weights as they were."),
        "## How to load it\n\n" + _loading(manifest, alone),
        *_measured(module),
        "## What is not known\n\n" + _unknown(module),
    ]
    return "\n\n".join(parts) + "\n"


def _unknown(module: nn.Module) -> str:
    start = "This card says what was done, not how well the model does: measure it"
    if hasattr(module, "compression"):
        start = "How the model does on inputs of another kind: measure it"
    return f"{start} on data of your own. The licence is that of the model it was made from."


def _measured(module: nn.Module) -> list[str]:
    """What ``dw.compress`` measured, where nothing was done to the model since."""
    report: Any = getattr(module, "compression", None)
    if report is None:
        return []
    return ["## What was measured\n\n" + "\n".join(f"- {line}" for line in report.lines())]


def stands_alone(module: nn.Module, surgeries: list[dict[str, Any]]) -> bool:
    """Whether transformers alone builds this model from its config: the same tensors, computing the same thing."""
    import torch

    config: Any = getattr(module, "config", None)
    if not type(module).__module__.startswith("transformers.models.") or config is None:
        return False
    if any(e["name"] == "swap_attention" and e["arguments"].get("name") not in _KERNELS for e in surgeries):
        return False
    build: Any = type(module)
    try:
        with torch.device("meta"):
            plain = build(config)
    except Exception:  # whatever a config that no longer fits makes its class raise
        return False
    return _shapes(plain) == _shapes(module)


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def _log(surgeries: list[dict[str, Any]]) -> str:
    lines = []
    for entry in surgeries:
        told = ", ".join(f"{name}={value!r}" for name, value in entry["arguments"].items() if value is not None)
        lines.append(f"1. `{entry['name']}({told[:300]}{'…' if len(told) > 300 else ''})`")
    return "\n".join(lines)


def _loading(manifest: Mapping[str, Any], alone: bool) -> str:
    came_from = str((manifest["origin"] or {}).get("source", ""))
    own = manifest["architecture"] is None and not came_from
    argument = ", model=YourClass(…)" if own else ""
    option = f"?model={came_from.partition('?')[0]}" if came_from.startswith("python:") else ""
    code = f'```python\nimport deadweight as dw\n\nmodel = dw.load("file:THIS_FOLDER{option}"{argument})\n```'
    if alone:
        kind = str(manifest["class"]).rpartition(".")[2]
        code += (
            f"\n\nTransformers alone loads it too:\n\n```python\nfrom transformers import {kind}\n\n"
            f'model = {kind}.from_pretrained("THIS_FOLDER")\n```'
        )
    return code


__all__ = ["card", "stands_alone"]
