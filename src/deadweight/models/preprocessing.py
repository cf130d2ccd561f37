"""How pictures are prepared for a model, as settings that can be written down: the model's own, and what one changes.

Settings are JSON: ``{"library": "timm", …}`` of `timm.data.resolve_data_config`, ``"torchvision"`` of a published
preset, or ``"transformers"`` of an image processor's ``to_dict``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from torch import nn

from deadweight.errors import InputError, SourceError
from deadweight.models.hub_processor import saved_processor, usual_processor
from deadweight.models.input_shape import input_shape
from deadweight.models.provenance import origin
from deadweight.source import Source, parse_source
from deadweight.source_options import PICTURE_OPTIONS

Settings = dict[str, Any]

# Pillow's numbers, which transformers keeps; the words are timm's.
INTERPOLATIONS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}


@dataclass(frozen=True)
class Change:
    """What one wants other than the model's own preprocessing; None leaves it.

    mean, std:     per channel (one number stands for all), of pictures in [0, 1].
    crop_pct:      share of the shorter side that the centre crop keeps, in (0, 1].
    interpolation: a key of :data:`INTERPOLATIONS`.
    size:          (height, width) in pixels.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop_pct: float | None = None
    interpolation: str | None = None
    size: tuple[int, int] | None = None

    def over(self, other: Change) -> Change:
        """This change, and what `other` wants beside it."""
        own = {entry.name: value for entry in fields(self) if (value := getattr(self, entry.name)) is not None}
        return replace(other, **own)

    def check(self, channels: int) -> None:
        """Raise :class:`InputError` for what no picture of so many channels can be prepared by."""
        for name in ("mean", "std"):
            numbers = getattr(self, name)
            if numbers is not None and (len(numbers) not in (1, channels) or not all(map(math.isfinite, numbers))):
                raise InputError(
                    f"{name}={','.join(map(str, numbers))}", expected=f"one number, or {channels} between commas"
                )
        if self.std is not None and min(self.std) <= 0:
            raise InputError(f"std={','.join(map(str, self.std))}", expected="numbers above 0")
        if self.crop_pct is not None and not 0 < self.crop_pct <= 1:
            raise InputError(f"crop_pct={self.crop_pct}", expected="a share: above 0, at most 1")
        if self.interpolation is not None and self.interpolation not in INTERPOLATIONS:
            raise InputError(f"interpolation={self.interpolation!r}", expected=f"one of {', '.join(INTERPOLATIONS)}")
        if self.size is not None and min(self.size) < 1:
            raise InputError(f"size={self.size}", expected="at least one pixel a side")


def change_of(options: Mapping[str, str]) -> Change:
    """The change that the options of a source ask for; raises :class:`SourceError` for what is no number.

    >>> change_of({"mean": "0.5", "size": "224,196"})
    Change(mean=(0.5,), std=None, crop_pct=None, interpolation=None, size=(224, 196))
    """
    found: dict[str, Any] = {}
    for name in PICTURE_OPTIONS.keys() & options.keys():
        text = options[name]
        try:
            if name == "interpolation":
                found[name] = text
            elif name == "crop_pct":
                found[name] = float(text)
            elif name == "size":
                sides = [int(part) for part in text.split(",")]
                height, width = sides * 2 if len(sides) == 1 else sides
                found[name] = height, width
            else:
                found[name] = tuple(float(part) for part in text.split(","))
        except ValueError as problem:
            raise SourceError(f"{name}={text!r}", expected=PICTURE_OPTIONS[name]) from problem
    return Change(**found)


def settings_of(model: nn.Module) -> tuple[Settings, str]:
    """The model's own settings, and why they are a guess: empty where its source states them."""
    kept: tuple[Settings, str] | None = getattr(model, "_deadweight_preprocessing", None)
    if kept is not None:
        return kept
    recorded = origin(model)
    source = parse_source(recorded["source"]) if recorded else None
    scheme = source.scheme if source is not None else ""
    if source is not None and scheme == "torchvision":
        return _torchvisions(source.name, model)
    if getattr(model, "config", None) is not None:
        return _transformers(model, source)
    if scheme != "embedded" and getattr(model, "pretrained_cfg", None):
        return _timms(model, source)
    plain = _plain(model)
    return plain, "" if scheme == "embedded" else "nothing says how the pictures it was trained on were prepared"


def keep_settings(model: nn.Module, settings: Settings, guess: str = "") -> None:
    """Let the model have these settings from now on, wherever it came from: those of a saved one."""
    vars(model)["_deadweight_preprocessing"] = settings, guess


def changed(settings: Settings, change: Change, channels: int) -> Settings:
    """The settings with the change made; raises :class:`InputError` for one that they have no place for."""
    change.check(channels)
    numbers = {name: _per_channel(getattr(change, name), channels) for name in ("mean", "std")}
    wanted = {name: value for name, value in numbers.items() if value is not None}
    if settings["library"] == "timm":
        wanted |= {name: value for name in ("crop_pct", "interpolation") if (value := getattr(change, name))}
        if change.size is not None:
            wanted["input_size"] = [channels, *change.size]
        return settings | wanted
    if settings["library"] == "torchvision":
        return settings | wanted | _resized(settings, change)
    return settings | {"processor": _processed(settings["processor"], change, numbers)}


def _per_channel(numbers: tuple[float, ...] | None, channels: int) -> list[float] | None:
    return None if numbers is None else list(numbers) * channels if len(numbers) == 1 else list(numbers)


def _resized(settings: Settings, change: Change) -> Settings:
    """Crop and shorter side of a preset of torchvision."""
    new: Settings = {} if change.interpolation is None else {"interpolation": change.interpolation}
    if change.size is None and change.crop_pct is None:
        return new
    crop = list(change.size or settings["crop_size"])
    share = change.crop_pct or min(settings["crop_size"]) / settings["resize_size"]
    return new | {"crop_size": crop, "resize_size": math.floor(min(crop) / share + 1e-6)}


def _processed(processor: Settings, change: Change, numbers: Mapping[str, list[float] | None]) -> Settings:
    """The settings of an image processor of transformers."""
    new = dict(processor)
    for name, key in (("mean", "image_mean"), ("std", "image_std")):
        if numbers[name] is not None:
            new |= {key: numbers[name], "do_normalize": True}
    if change.interpolation is not None:
        new |= {"resample": INTERPOLATIONS[change.interpolation]}
    if change.size is None and change.crop_pct is None:
        return new
    before, cropped = processor.get("size") or {}, processor.get("crop_size") if processor.get("do_center_crop") else {}
    target = _sides(cropped) or _sides(before)
    if target is None:
        raise InputError(
            f"another size for a {processor.get('image_processor_type')}, whose size is {before}",
            expected="an image processor whose pictures all come in one size",
            cure="change preprocessor_config.json beside the model",
        )
    height, width = change.size or target
    if change.crop_pct is None and not cropped:
        return new | {"size": {"height": height, "width": width}}
    whole = before.get("shortest_edge") or min(_sides(before) or target)
    share = change.crop_pct or min(target) / whole
    shorter = math.floor(min(height, width) / share + 1e-6)
    crop = {"height": height, "width": width}
    return new | {"do_resize": True, "size": {"shortest_edge": shorter}, "do_center_crop": True, "crop_size": crop}


def _sides(size: Mapping[str, int] | None) -> tuple[int, int] | None:
    return (size["height"], size["width"]) if size and size.get("height") and size.get("width") else None


def _plain(model: nn.Module) -> Settings:
    channels, height, width = input_shape(model)
    return {
        "library": "timm", "input_size": [channels, height, width], "interpolation": "bicubic", "crop_pct": 1.0,
        "crop_mode": "center", "mean": [0.0] * channels, "std": [1.0] * channels,
    }  # fmt: skip


def _timms(model: nn.Module, source: Source | None) -> tuple[Settings, str]:
    """timm's own settings, at the size and with the channels this model was built for."""
    from timm.data import resolve_data_config

    channels, height, width = input_shape(model)
    config: Settings = resolve_data_config({}, model=model) | {"input_size": (channels, height, width)}
    if len(config["mean"]) != channels:
        return _plain(model), f"timm states them for {len(config['mean'])} channels and the model takes {channels}"
    guess = ""
    others = source is None or source.scheme == "checkpoint" or "checkpoint" in source.options
    if others and not _stated_with_the_weights(model):
        guess = "they are what timm states for the architecture, not for these weights"
    return json.loads(json.dumps(config)) | {"library": "timm"}, guess


def _stated_with_the_weights(model: nn.Module) -> bool:
    """Whether the configuration says other things than timm's own for the architecture: a checkpoint's, for example."""
    from timm.models import get_pretrained_cfg

    own: Any = model.pretrained_cfg
    name = ".".join(str(own[part]) for part in ("architecture", "tag") if own.get(part))
    try:
        usual: Any = get_pretrained_cfg(name)
    except RuntimeError:  # a tag that timm does not know
        return False
    names = ("mean", "std", "crop_pct", "interpolation")
    return usual is not None and any(json.dumps(own.get(name)) != json.dumps(getattr(usual, name)) for name in names)


def _torchvisions(name: str, model: nn.Module) -> tuple[Settings, str]:
    """What torchvision publishes with the default weights, at the size this model was built for."""
    from torchvision.models import get_model_weights

    published: Any = get_model_weights(name)["DEFAULT"].transforms()
    settings = {
        "library": "torchvision",
        "crop_size": list(published.crop_size) * 2,
        "resize_size": published.resize_size[0],
        "interpolation": published.interpolation.value,
        "mean": list(published.mean),
        "std": list(published.std),
    }
    channels, height, width = input_shape(model)
    if (height, width) == tuple(settings["crop_size"]) or not hasattr(model, "image_size"):
        return settings, ""
    why = f"torchvision publishes them for {settings['crop_size'][0]} pixels a side, not for {height}"
    return changed(settings, Change(size=(height, width)), channels), why


def _transformers(model: nn.Module, source: Source | None) -> tuple[Settings, str]:
    """The image processor beside the weights, else the one that models of its kind usually have."""
    processor, missing = saved_processor(model, source)
    if processor is None:
        processor = usual_processor(model)
    channels = input_shape(model)[0]
    if processor is None or (missing and channels != 3):  # the usual ones are for colours
        return changed(_plain(model), Change(mean=(0.5,), std=(0.5,)), channels), missing
    own = getattr(processor, "data_config", None)  # of a model that transformers takes from timm
    if own is not None:
        return json.loads(json.dumps(own)) | {"library": "timm"}, missing
    settings = {"library": "transformers", "processor": json.loads(processor.to_json_string())}
    return (changed(settings, Change(size=input_shape(model)[1:]), 3), missing) if missing else (settings, "")
