"""The vision models studies look at: what they are called, where they come from, and one kept loaded at a time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from deadweight.anatomy import anatomy
from deadweight.data import ImageData, load_images
from deadweight.errors import InputError
from deadweight.lab import Cell, Json, Workbench
from deadweight.loading import load, model_source
from deadweight.models import transform
from deadweight.models.head_names import head_names
from deadweight.own_code import file_of
from deadweight.source import Source


@dataclass(frozen=True)
class ModelRef:
    """A model to look at: from a source string, or from the folder of the cell that trains it.

    small: blocks of a small ViT the study trains itself, None for models from elsewhere.
    """

    source: str | None
    cell: str | None = None
    small: int | None = None

    @property
    def params(self) -> dict[str, Json]:
        """What of it goes into the cells."""
        return {"vision": self.source} if self.small is None else {"vision": self.source, "small": self.small}

    @property
    def trained(self) -> bool:
        """Whether the weights are trained, as far as the source says."""
        if self.source is None:
            return True
        parsed = model_source(self.source)
        return parsed.scheme != "embedded" and ("checkpoint" in parsed.options or parsed.flag("pretrained", True))


def model_ref(cell: Cell) -> ModelRef:
    """The model a cell is about."""
    source = cell.params["vision"]
    return ModelRef(source, None if source is not None else cell.needs[0], cell.params.get("small"))


def model_name(cell: Cell) -> str:
    """What the model of a cell is called in findings and charts."""
    small, source = cell.params.get("small"), cell.params.get("vision")
    return f"small ViT of {small} blocks" if small else str(source or "the model trained here")


def saved_source(cell: Cell) -> str:
    """The model of a cell as a source that a remedy can name: ``cell:KEY`` for one this run has trained and saved."""
    source = cell.params.get("vision")
    return str(source) if source is not None else f"cell:{cell.needs[0]}"


class ModelCache:
    """Keeps one model and its images at a time."""

    def __init__(self, images: str, limit: int | None, seed: int) -> None:
        self._images_source, self._limit, self._seed = images, limit, seed
        self._model: tuple[ModelRef, nn.Module] | None = None
        self._data: tuple[ModelRef, ImageData] | None = None

    def model(self, ref: ModelRef, bench: Workbench | None = None) -> nn.Module:
        """The model; `bench` finds the folder of one that another cell has saved."""
        if self._model is None or self._model[0] != ref:
            self._model = None  # let go of the other before this one is loaded
            source = ref.source
            if source is None:
                assert bench is not None  # only run() comes here without a source
                assert ref.cell is not None  # one of the two is there
                source = f"file:{bench.folder_of(ref.cell) / 'model'}"
            model = load_seeded(source, self._seed)
            if anatomy(model).kind != "vision":
                raise InputError(
                    f"{source} is a language model",
                    expected="a vision transformer",
                    cure="name it with --language",
                )
            self._model = ref, model
        return self._model[1]

    def images(self, ref: ModelRef, bench: Workbench | None = None) -> ImageData:
        """The images, prepared as the model wants them; a model trained here takes them as they are."""
        if self._data is None or self._data[0] != ref:
            model = self.model(ref, bench) if ref.source is not None else None
            prepare, head = (None, None) if model is None else (transform(model), head_names(model))
            found = load_images(self._images_source, limit=self._limit, transform=prepare, head=head)
            self._data = ref, found
        return self._data[1]


def load_seeded(source: str, seed: int) -> nn.Module:
    """The model of `source`; weights that are random follow from `seed`, so that every process has the same."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return load(source)


def language_digest(source: Source) -> str:
    """A digest of a language model's files, weights from elsewhere included; its name where it has none here."""
    if source.scheme == "python" and (code := file_of(source)) is not None:
        return f"{digest(code)}-{source.text}"
    marks = [digest(Path(source.name)), digest(Path(source.options.get("checkpoint", "/nowhere")).expanduser())]
    found = [mark for mark in marks if mark is not None]
    return "-".join(found) or source.text


def digest(path: Path) -> str | None:
    """A digest of a file's content, or of all files of a folder; None for what is no path here."""
    if not path.exists():
        return None
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    total = hashlib.blake2b(digest_size=12)
    for file in files:
        total.update(file.name.encode())
        with file.open("rb") as content:
            total.update(hashlib.file_digest(content, "blake2b").digest())
    return total.hexdigest()


__all__ = [
    "ModelCache",
    "ModelRef",
    "digest",
    "language_digest",
    "load_seeded",
    "model_name",
    "model_ref",
    "saved_source",
]
