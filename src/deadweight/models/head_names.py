"""What the outputs of a vision model's head are called, as far as the model or its library says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from deadweight.models.provenance import origin
from deadweight.source import parse_source

Names = tuple[tuple[str, ...], ...]

_GENERIC = re.compile(r"label[_ ]?\d+", re.IGNORECASE)


def head_names(model: nn.Module, outputs: int | None = None) -> tuple[Names, bool] | None:
    """The names each output goes by, and whether the model itself says so; None for a model without a head.

    They come from ``id2label`` of transformers, from timm's label names, from the categories torchvision publishes;
    timm's ImageNet labels and torchvision's categories are inferred from the number of outputs. An output that nothing
    names has no name.

    outputs: how many there are, where that is known; by default what the model says.

    >>> import deadweight as dw
    >>> head_names(dw.load("embedded:digits-vit", num_classes=3))
    (((), (), ()), False)
    """
    config: Any = getattr(model, "config", None)
    if config is not None:
        return _transformers(model, config, outputs)
    count = outputs if outputs is not None else _outputs(model)
    if not count:
        return None
    stated = (getattr(model, "pretrained_cfg", None) or {}).get("label_names")
    if stated and len(stated) == count:
        return tuple(_aliases(str(name)) for name in _in_order(stated)), True
    recorded = origin(model)
    scheme = parse_source(recorded["source"]).scheme if recorded else ""
    inferred = _published(recorded["source"]) if recorded and scheme == "torchvision" else None
    if inferred is None and hasattr(model, "pretrained_cfg"):
        inferred = imagenet(count)
    if inferred is not None and len(inferred) == count:
        return inferred, False
    return ((),) * count, False


def _outputs(model: nn.Module) -> int | None:
    if isinstance(count := getattr(model, "num_classes", None), int):
        return count
    last = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return last[-1].out_features if last and origin(model) is not None else None


def _transformers(model: nn.Module, config: Any, outputs: int | None) -> tuple[Names, bool] | None:
    count = outputs if outputs is not None else int(getattr(config, "num_labels", 0) or 0)
    if outputs is None and "ForImageClassification" not in type(model).__name__:
        return None
    stated: Mapping[Any, str] = getattr(config, "id2label", None) or {}
    names = [str(name) for name in _in_order(stated)]
    if len(names) != count or all(_GENERIC.fullmatch(name) for name in names):
        return ((),) * count, False
    theirs = imagenet(count) or ((),) * count
    return tuple(
        tuple(dict.fromkeys([*_aliases(name), *(known if name in known else ())]))
        for name, known in zip(names, theirs, strict=True)
    ), True


def imagenet(outputs: int) -> Names | None:
    """The names of ImageNet's classes, where timm knows a set of so many: lemmas, each lemma, and the synset."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": outputs})
    if subset is None:
        return None
    info = ImageNetInfo(subset)
    pairs = zip(info.label_names(), info.label_descriptions(), strict=True)
    return tuple((*_aliases(description), synset) for synset, description in pairs)


def _published(source: str) -> Names | None:
    from torchvision.models import get_model_weights

    categories = get_model_weights(parse_source(source).name)["DEFAULT"].meta.get("categories")
    if not categories:
        return None
    theirs = imagenet(len(categories)) or ((),) * len(categories)  # which has the synsets, in the same order
    return tuple((name, *known[-1:]) for name, known in zip(categories, theirs, strict=True))


def _in_order(names: Any) -> Iterator[Any]:
    """The values of a mapping in the order of its numbers, or a list as it is."""
    if isinstance(names, Mapping):
        return (names[key] for key in sorted(names, key=int))
    return iter(names)


def _aliases(name: str) -> tuple[str, ...]:
    """``tench, Tinca tinca`` also goes by each of the two."""
    parts = [part.strip() for part in name.split(",")]
    return (name, *parts) if len(parts) > 1 else (name,)
