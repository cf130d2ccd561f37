"""Which models a depth study looks at, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from deadweight.anatomy import anatomy
from deadweight.data import ImageData, load_images
from deadweight.errors import InputError
from deadweight.lab import Cell, Json, Workbench
from deadweight.models import model_source, transform
from deadweight.studies.answers import loaded


@dataclass(frozen=True)
class Subject:
    """A model to look at: from a source string, or from the folder of the cell that trains it.

    small: blocks of a small ViT this study trains itself, None for models from elsewhere.
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
        """Whether the weights are trained, as far as the source tells."""
        if self.source is None:
            return True
        parsed = model_source(self.source)
        return parsed.scheme != "embedded" and parsed.flag("pretrained", True)


class Shelf:
    """Keeps one model and its images at a time."""

    def __init__(self, images: str, limit: int | None, seed: int) -> None:
        self._options = (images, limit, seed)
        self._model: tuple[Subject, nn.Module] | None = None
        self._data: tuple[Subject, ImageData] | None = None

    def model(self, subject: Subject, bench: Workbench | None = None) -> nn.Module:
        """The model; `bench` finds the folder of one that another cell has saved."""
        if self._model is None or self._model[0] != subject:
            self._model = None  # let go of the other before this one is loaded
            source = subject.source
            if source is None:
                assert bench is not None  # only run() comes here without a source
                assert subject.cell is not None  # one of the two is there
                source = f"file:{bench.folder_of(subject.cell) / 'model'}"
            model = loaded(source, self._options[2])
            if anatomy(model).kind != "vision":
                raise InputError(
                    f"{source} is a language model",
                    expected="a vision transformer",
                    cure="`deadweight depth --language` takes language models",
                )
            self._model = subject, model
        return self._model[1]

    def images(self, subject: Subject, bench: Workbench | None = None) -> ImageData:
        """The images, prepared as the model wants them; a model trained here takes them as they are."""
        if self._data is None or self._data[0] != subject:
            source, limit, _ = self._options
            prepare = transform(self.model(subject, bench)) if subject.source is not None else None
            self._data = subject, load_images(source, limit=limit, transform=prepare)
        return self._data[1]


def subject_of(cell: Cell) -> Subject:
    """The model a cell is about."""
    small = cell.params.get("small")
    source = cell.params["vision"]
    return Subject(source, None if source is not None else cell.needs[0], small)
