"""The options of the mlp study (arXiv 2512.01059) and the list of its experiments."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, model_validator
from torch import nn

from deadweight.anatomy import anatomy
from deadweight.data import ImageData, load_images
from deadweight.errors import InputError
from deadweight.models import transform
from deadweight.models.head_names import head_names
from deadweight.studies.frame.experiment import Experiment
from deadweight.studies.frame.models import load_seeded
from deadweight.studies.frame.study import Study
from deadweight.studies.mlp.cut_language import CutLanguage
from deadweight.studies.mlp.cut_vision import CutVision
from deadweight.studies.mlp.speed import Speed
from deadweight.studies.mlp.trained_variants import TrainedVariants
from deadweight.studies.mlp.variants import Cuts, Shape, build_variant, fresh, preparation
from deadweight.training import Recipe

Variant = Literal["baseline", "grouped", "shallow", "thin"]


class MlpStudy(Study):
    """What the MLPs of a vision transformer carry: shared between blocks, cut to half their width, or left alone."""

    kind: ClassVar[str] = "mlp"
    version: ClassVar[int] = 2
    EXPERIMENTS: ClassVar[tuple[Experiment, ...]] = (CutVision(), CutLanguage(), TrainedVariants(), Speed())
    TITLE: ClassVar[str] = "MLPs: shared, narrowed, or left alone"
    QUESTION: ClassVar[str] = "How much of the MLPs can be shared or narrowed without losing accuracy?"

    images: str = Field(default="embedded:digits", description="source of labelled images")
    vision: str | None = Field(default=None, description="a trained model to examine instead of training variants")
    language: str | None = Field(default=None, description="a causal language model to examine instead")
    text: str = Field(default="embedded:stdlib", description="text it is refitted and measured on")
    model: str | None = Field(default=None, description="architecture to train (timm:NAME); default: a small ViT")
    variants: tuple[Variant, ...] = Field(default=("baseline", "grouped", "shallow"), description="models to compare")
    seeds: tuple[int, ...] = Field(default=(0, 1, 2, 3, 4), description="one run of every variant for each")
    epochs: int = Field(default=9, gt=0, description="passes over the training images")
    based_on: Literal["mini", "paper"] = Field(default="mini", description="dw.Recipe.mini() or dw.Recipe.paper()")
    recipe: dict[str, Any] = Field(default_factory=dict, description="what differs from it, in settings of dw.Recipe")
    image_size: int | None = Field(
        default=None, gt=0, description="pixels per side; default: the images' own, 32 at most"
    )
    workers: int = Field(default=0, ge=0, description="processes that read and augment pictures")
    trackers: tuple[str, ...] = Field(default=(), description="where curves go as they grow, e.g. tensorboard")
    patch_size: int | None = Field(default=None, gt=0, description="of the small ViT; default: at most 4 × 4 patches")
    dim: int = Field(default=48, gt=0, description="width of the small ViT")
    depth: int = Field(default=6, gt=0, description="blocks of the small ViT")
    heads: int = Field(default=4, gt=0, description="attention heads of the small ViT")
    size: int = Field(default=2, gt=1, description="blocks that share an MLP in the grouped variant")
    pattern: str = Field(default="adjacent", description="which blocks share: adjacent, strided or mirrored")
    scale: float = Field(default=2**-0.5, gt=0, description="of the weights of shared MLPs at the start")
    keep: float = Field(default=0.5, gt=0, le=1, description="share of hidden units in the shallow and thin variants")

    _data: ImageData | None = PrivateAttr(default=None)
    _vision: nn.Module | None = PrivateAttr(default=None)

    @classmethod
    def for_audit(cls) -> MlpStudy:
        """The settings of the audit: three variants × five seeds on 8 × 8 pictures in about a minute."""
        return cls(patch_size=4)

    @model_validator(mode="after")
    def _sensible(self) -> MlpStudy:
        if len(set(self.variants)) < len(self.variants) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("variants and seeds must each be listed once")
        if not self.seeds or "baseline" not in self.variants:
            raise ValueError("at least one seed and the baseline are needed to compare with")
        self.recipe_for(0)
        return self

    @property
    def trains(self) -> bool:
        """Whether variants are trained, rather than a model examined that somebody brings."""
        return self.vision is None and self.language is None

    def recipe_for(self, seed: int) -> Recipe:
        """How a variant is trained from `seed`."""
        start = Recipe.mini if self.based_on == "mini" else Recipe.paper
        usual = 1 if self.based_on == "mini" else 5
        settings: dict[str, Any] = {"warmup_epochs": min(usual, self.epochs - 1), **self.recipe}
        try:
            return start(epochs=self.epochs, seed=seed, **settings)
        except TypeError as problem:
            raise InputError(
                f"recipe: {problem}", expected="settings of dw.Recipe, without epochs and seed"
            ) from problem

    def pictures(self) -> ImageData:
        """The images, prepared for the model that is examined or trained; kept until :meth:`close`."""
        if self._data is None:
            prepare = transform(self.examined()) if self.vision is not None else None
            if prepare is None and self.image_size is not None:
                prepare = preparation(self.model, self.image_size)
            head = head_names(self.examined()) if self.vision is not None else None
            self._data = load_images(self.images, limit=self.limit, transform=prepare, head=head)
        return self._data

    def variant(self, name: str, seed: int) -> nn.Module:
        """A variant with its first weights, drawn from `seed`."""
        shape = Shape(self.patch_size, self.dim, self.depth, self.heads)
        cuts = Cuts(self.size, self.pattern, self.scale, self.keep)
        return build_variant(name, lambda **changes: fresh(self.model, shape, self.pictures(), seed, **changes), cuts)

    def examined(self) -> nn.Module:
        """The vision model somebody brings; refused where it makes no predictions."""
        if self._vision is None:
            assert self.vision is not None  # only asked for with one
            model = load_seeded(self.vision, self.seed)
            parts = anatomy(model)
            if parts.kind != "vision" or parts.head is None or isinstance(parts.head, nn.Identity):
                raise InputError(
                    f"{self.vision} makes no predictions about images",
                    expected="a vision transformer with a classification head",
                    cure="`deadweight depth` examines models without a head",
                )
            self._vision = model
        return self._vision

    def close(self) -> None:
        self._data = self._vision = None
