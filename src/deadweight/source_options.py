"""What the sources of each kind take after ``?``: for `deadweight list`, its help, the documents, and the checks.

A source of another package, which is not here, reads its options itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_PRETRAINED = {"pretrained": "true or false; false: random weights"}
_STRICT = {"strict": "true or false; false: what does not match is left at random, and said"}
_AVERAGED = {"ema": "true: of a checkpoint, the exponential moving average of the weights"}
_PATHS = {"paths": "where the parts are that no adapter knows: blocks=encoder.layers,embedding=patchify,mlp=ff …"}
_OWN = {"model": "python:MODULE:FUNCTION that builds a class of your own, with the options it had when it was saved"}
_FILE = {"checkpoint": "FILE or FOLDER of weights: .safetensors .pth .pt .pth.tar .bin"}
_WEIGHTS = _PATHS | _PRETRAINED | _FILE | _AVERAGED | _STRICT
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
    "checkpoint": {**_PATHS, **_AVERAGED, **_STRICT, **PICTURE_OPTIONS},
    "embedded": _PATHS,
    "python": {name: about for name, about in _WEIGHTS.items() if name != "pretrained"},
    "gguf": _PATHS,
    "file": _PATHS | _OWN,
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
_FOLDERS = {
    "train": "FOLDER of the part to train on; . where all folders are classes",
    "validation": "FOLDER of the part held out",
    "bits": "9 to 16: of grey pictures stored in 16 bits, where the file does not say it",
}
IMAGE_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "embedded": _CLASSES,
    "folder": {**_CLASSES, **_FOLDERS},
    "hf": _CLASSES,
}
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
