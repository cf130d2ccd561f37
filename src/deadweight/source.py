"""Source strings: where a model or data comes from, as people write it.

``scheme:name[@revision][#split][?option=value&…]``, for example ``timm:vit_base_patch16_224?pretrained=false``,
``hf:org/model@main``, ``folder:C:\\pictures``, ``csv:reviews.csv?text=body&label=stars``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from deadweight.errors import SourceError
from deadweight.registry import did_you_mean

_SCHEME = re.compile(r"^([a-z][a-z0-9_+-]+):(.+)$", re.DOTALL)
_FIRST_OPTION = re.compile(r"\?(?=[A-Za-z_]\w*=)")
_NEXT_OPTION = re.compile(r"&(?=[A-Za-z_]\w*=)")


@dataclass(frozen=True)
class Source:
    """A parsed source string; `text` is the string as it was given."""

    text: str
    scheme: str
    name: str
    options: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def repository(self) -> tuple[str, str | None, str | None]:
        """``(name, revision, split)`` of hub sources written ``NAME[@REVISION][#SPLIT]``."""
        rest, _, split = self.name.partition("#")
        name, _, revision = rest.partition("@")
        return name, revision or None, split or None

    def flag(self, option: str, default: bool) -> bool:
        """A yes/no option; raises :class:`SourceError` on anything else."""
        value = self.options.get(option)
        if value is None:
            return default
        if value.lower() in {"true", "1", "yes"}:
            return True
        if value.lower() in {"false", "0", "no"}:
            return False
        raise SourceError(
            f"{option}={value!r} in {self.text!r}", expected="true or false", cure=f"write ?{option}=false"
        )

    def number(self, option: str, *, lowest: int, highest: int | None = None) -> int | None:
        """A whole-number option, None where it is not given; raises :class:`SourceError` outside its range.

        >>> parse_source("folder:pictures?bits=12").number("bits", lowest=9, highest=16)
        12
        """
        text = self.options.get(option)
        if text is None:
            return None
        value = int(text) if re.fullmatch(r"[+-]?\d{1,18}", text.strip()) else None
        if value is None or value < lowest or (highest is not None and value > highest):
            raise SourceError(
                f"{option}={text!r} in {self.text!r}",
                expected=f"a whole number, {lowest} or more" if highest is None else f"{lowest} to {highest}",
                cure=f"write ?{option}={lowest if highest is None else highest}",
            )
        return value


def parse_source(text: str, *, example: str = "timm:vit_base_patch16_224") -> Source:
    """Split a source string; a missing scheme raises :class:`SourceError` with an example.

    A scheme has at least two letters, so that ``C:\\models`` is read as a path without a scheme.
    Options begin after the first ``?`` that ``name=`` follows, and go on after each ``&`` that ``name=`` follows: file
    names and values may hold both. Values are read as typed, but for ``%26`` and the like.
    An option given twice raises :class:`SourceError`.

    >>> parse_source("csv:what?.csv?template=Q & A about C++? {text}&label=stars").options
    {'template': 'Q & A about C++? {text}', 'label': 'stars'}
    """
    matched = _SCHEME.match(text.strip())
    if not matched:
        raise SourceError(
            f"source {text!r} does not say what kind it is",
            expected="SCHEME:NAME",
            cure=f"write for example {example}; `deadweight list models` and `deadweight list data` show the kinds",
        )
    scheme, name = matched.groups()
    options: dict[str, str] = {}
    first = _FIRST_OPTION.search(name)
    for pair in _NEXT_OPTION.split(name[first.end() :]) if first else ():
        key, _, value = pair.partition("=")
        if key in options:
            raise SourceError(
                f"{text!r} gives the option {key!r} twice", expected="each once", cure="write %26 for an & in a value"
            )
        options[key] = unquote(value)
    name = name[: first.start()] if first else name
    return Source(text.strip(), scheme, name, options)


def check_options(source: Source, known: Iterable[str]) -> None:
    """Refuse every option of `source` that is not among the `known`, which the error lists.

    >>> check_options(parse_source("timm:vit_tiny_patch16_224?pretrained=false"), ["pretrained"])
    """
    known = sorted(known)
    for name in source.options:
        if name not in known:
            raise SourceError(
                f"{source.text!r} has the option {name!r}, which nothing reads",
                expected=f"one of {', '.join(known)}" if known else f"no option: {source.scheme}: takes none here",
                cure=did_you_mean(name, known) if known else "leave it out",
            )


# What the sources of each kind take after ``?``, for `deadweight list`, its help and the documents; a source of another
# package that is not here reads its options itself.
_PRETRAINED = {"pretrained": "true or false; false: random weights"}
_STRICT = {"strict": "true or false; false: what does not match is left at random, and said"}
_AVERAGED = {"ema": "true: of a checkpoint, the exponential moving average of the weights"}
_WEIGHTS = (
    _PRETRAINED | {"checkpoint": "FILE or FOLDER of weights: .safetensors .pth .pt .pth.tar .bin"} | _AVERAGED | _STRICT
)
PICTURE_OPTIONS: Mapping[str, str] = {
    "mean": "mean subtracted from each channel of [0, 1], e.g. 0.5 or 0.485,0.456,0.406",
    "std": "what each channel is then divided by, e.g. 0.5 or 0.229,0.224,0.225",
    "crop_pct": "share of the shorter side that the centre crop keeps, e.g. 0.9; 1 crops none of it",
    "interpolation": "how pictures are resized: nearest, lanczos, bilinear, bicubic, box or hamming",
    "size": "pixels a side, or HEIGHT,WIDTH",
}
MODEL_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "timm": {**_WEIGHTS, **PICTURE_OPTIONS},
    "torchvision": {**_WEIGHTS, **PICTURE_OPTIONS},
    "hf": {**_WEIGHTS, **PICTURE_OPTIONS},
    "checkpoint": {**_AVERAGED, **_STRICT, **PICTURE_OPTIONS},
    "embedded": {},
    "python": {name: about for name, about in _WEIGHTS.items() if name != "pretrained"},
    "gguf": {},
    "file": {
        "model": "python:MODULE:FUNCTION that builds a class of your own, with the options it had when it was saved"
    },
}
FACTORY: Mapping[str, str] = {
    "timm": "what the model's class takes, e.g. num_classes=10, img_size=384, global_pool=avg",
    "torchvision": "what the model's class takes, e.g. num_classes=10, image_size=384, dropout=0.1",
    "hf": "plain settings of its config.json, e.g. num_labels=10, image_size=384; attn_implementation=eager",
    "python": "what the function takes",
    "checkpoint": "what the class of the architecture found takes",
    "embedded": "for digits-vit, what timm's VisionTransformer takes, e.g. depth=12",
}
# python: is not here: what its function takes is known once it is imported.
_CLASSES = {"classes": "NAME,NAME …: the classes in the order of the model's outputs; none: they are not a model's"}
IMAGE_OPTIONS: Mapping[str, Mapping[str, str]] = {"embedded": _CLASSES, "folder": _CLASSES, "hf": _CLASSES}
TEXT_OPTIONS: Mapping[str, Mapping[str, str]] = {"embedded": {}, "text": {}, "hf": {}}
_COLUMNS = {
    "text": "COLUMN with the text; or premise=, hypothesis=, or first=, second= where an item has two texts",
    "premise": "COLUMN",
    "hypothesis": "COLUMN",
    "first": "COLUMN",
    "second": "COLUMN",
    "label": "COLUMN with the label",
    "words": "LABEL:WORD,LABEL:WORD …: the words that stand for the labels",
    "template": "how an item is put, e.g. Review: {text}\\nSentiment:",
}
TASK_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "embedded": {},
    "csv": {**_COLUMNS, "delimiter": "what parts the columns, e.g. ; or tab", "encoding": "of the file, e.g. latin-1"},
    "jsonl": _COLUMNS,
    "parquet": _COLUMNS,
    "hf": _COLUMNS,
}


def options_text() -> str:
    """What each kind of source takes after ``?``, one option a line."""
    lines = ["After ?, several between &, as in timm:NAME?num_classes=10&img_size=384; an unknown option is an error."]
    roles = (("Models", MODEL_OPTIONS), ("Images", IMAGE_OPTIONS), ("Text", TEXT_OPTIONS), ("Tasks", TASK_OPTIONS))
    for role, table in roles:
        told = {(name, about): [kind for kind in table if name in table[kind]] for own in table.values()
                for name, about in own.items()}  # fmt: skip
        lines += [f"{role}, {_kinds(kinds)}: {name}={about}" for (name, about), kinds in told.items()]
        if table is MODEL_OPTIONS:
            lines += [f"{role}, {kind}: {about}" for kind, about in FACTORY.items()]
        if table in (IMAGE_OPTIONS, TASK_OPTIONS):
            lines.append(f"{role}, python: what the function takes")
        if without := [kind for kind in table if not table[kind] and not (table is MODEL_OPTIONS and kind in FACTORY)]:
            lines.append(f"{role}, {_kinds(without)}: none")
    return "\n".join(lines)


def _kinds(kinds: Iterable[str]) -> str:
    return " ".join(f"{kind}:" for kind in kinds)
