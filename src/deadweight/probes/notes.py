"""What a reader of a profile must be told: why columns are NaN, and what the numbers rest on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from deadweight.probes import heads
from deadweight.probes.kinds import Facts, HeadProbe, ImageProbe, MomentProbe, needs_images
from deadweight.probes.probe import PROBES
from deadweight.probes.states.class_moments import ClassMoments
from deadweight.probes.states.feature_sample import FeatureSample
from deadweight.probes.states.image_means import ImageMeans
from deadweight.probes.states.scrambling import MIXED, ScramblingMoments


class Profiled(Protocol):
    """What the notes look at of a depth profile, which is made above them."""

    @property
    def facts(self) -> Facts: ...
    @property
    def probes(self) -> tuple[str, ...]: ...
    @property
    def images(self) -> ImageMeans: ...
    @property
    def moments(self) -> ClassMoments: ...
    @property
    def sample(self) -> FeatureSample: ...
    @property
    def scrambling(self) -> ScramblingMoments: ...

    def scored(self) -> npt.NDArray[np.bool_]: ...


def lacking(profile: Profiled) -> Iterator[str]:
    """Columns, or parts of them, that are NaN."""
    if not profile.images.images:
        yield "no images were seen: every column is NaN"
    for name in profile.probes:
        reason = PROBES.get(name).lacks(profile.facts)
        if reason is None and name in mapped(profile):
            reason = needs_images(profile.facts)  # attention maps are looked at in vision models alone
        if reason is not None:
            yield f"{name}: {reason}"
    of_blocks = [name for name in profile.probes if name == "influence" or name in mapped(profile)]
    if of_blocks:
        yield f"{', '.join(of_blocks)}: a block's; there is none at the first and the last row"
    if "pe_dominance" in profile.probes and profile.facts.position_kind == "learned":
        yield "pe_dominance: what enters the first block; there is none at later rows"
    yield from lacking_scrambling(profile)
    if not class_columns(profile) or profile.facts.kind != "vision":
        return
    columns = ", ".join(class_columns(profile))
    if not profile.sample.seen:
        yield f"{columns}: the batches carried no labels"
    elif len(profile.moments.classes) == 1:
        yield f"{columns}: all labels are of one class"
    elif not profile.scored().any():
        yield f"{columns}: all images fall into one fold, so none can be judged by others"
    of_head = [name for name in profile.probes if isinstance(PROBES.get(name), HeadProbe)]
    if of_head and profile.sample.seen:
        yield f"{', '.join(of_head)}: of the feature the head reads ({profile.facts.reads}), at the last row only"
    if other_labels(profile) is not None:
        compared = [*of_head, *(name for name in profile.probes if getattr(PROBES.get(name), "head", False))]
        yield f"{', '.join(compared)}: the label spaces differ: {other_labels(profile)}"


def lacking_scrambling(profile: Profiled) -> Iterator[str]:
    of_moments = [name for name in profile.probes if isinstance(PROBES.get(name), MomentProbe)]
    if not of_moments or profile.facts.kind != "vision" or not profile.images.images:
        return
    columns = ", ".join(of_moments)
    if profile.scrambling.tokens == MIXED:
        yield f"{columns}: images with different numbers of patches"
    elif profile.scrambling.tokens == 1:
        yield f"{columns}: one patch an image has no others"
    elif profile.scrambling.tokens and not profile.scrambling.images.all():
        yield f"{columns}: all images fall into one fold, so none can be held out"


def doubts(profile: Profiled) -> Iterator[str]:
    """What the columns rest on."""
    rows, fewest = profile.scrambling.rows, int(profile.scrambling.images.min())
    width = profile.scrambling.means[str(rows[0])].shape[1] if rows else 0
    of_all = [name for name in ("r2_all", "isi") if name in profile.probes]
    if of_all and 0 < fewest < width:
        yield (
            f"{', '.join(of_all)}: the smaller fold has {fewest} images for {width} dimensions of what an image's "
            "tokens share: there the ridge decides, and R² of unseen images is low"
        )
    seen, kept = profile.sample.seen, len(profile.sample.hashes)
    if not seen:
        return
    if seen < profile.images.images:
        yield f"class columns: {seen} of {profile.images.images} images carried labels"
    width = max(mean.shape[1] for mean in profile.moments.means.values())
    if "nc1" in profile.probes and seen - len(profile.moments.classes) < width:
        yield (
            f"nc1: {seen} images in {len(profile.moments.classes)} classes for {width} dimensions: the covariance "
            "within classes has not full rank and is estimated too low between the images seen"
        )
    if "nc1" in profile.probes and profile.moments.pooled and np.ptp(profile.moments.counts) > 0:
        yield "nc1: too many classes to keep a covariance each; classes weigh as many images as they have"
    if profile.facts.reads == "cls":
        yield "class columns at layer 0: the CLS token is the same for every image there, so it tells no class"
    if kept < seen:
        yield f"readout columns: a sample of {kept} of {seen} images, those with the smallest hashes"


def other_labels(profile: Profiled) -> str | None:
    """Why the labels seen are not the head's own; None when they may be compared."""
    return heads.other_labels(profile.moments.classes, profile.facts.outputs)


def class_columns(profile: Profiled) -> list[str]:
    return [name for name in profile.probes if not isinstance(PROBES.get(name), (ImageProbe, MomentProbe))]


def mapped(profile: Profiled) -> list[str]:
    return [name for name in profile.probes if getattr(PROBES.get(name), "attention", False)]
