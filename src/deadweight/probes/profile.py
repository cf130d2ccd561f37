"""`profile(model, batches)`: one streaming pass, every row of the table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deadweight.anatomy import Anatomy
from deadweight.anatomy import anatomy as find_anatomy
from deadweight.data.batches import check_loader, inputs_and_labels
from deadweight.errors import InputError
from deadweight.probes.blas import one_blas_thread
from deadweight.probes.depth_profile import DepthProfile
from deadweight.probes.hashes import batch_size, folds, item_hashes
from deadweight.probes.heads import answers_of, head_weights
from deadweight.probes.kinds import ImageProbe, MomentProbe
from deadweight.probes.layer import Labels
from deadweight.probes.model_facts import examined, facts_of
from deadweight.probes.probe import PROBES, chosen
from deadweight.probes.recorder import Recorder
from deadweight.probes.states.batch import Batch
from deadweight.probes.states.class_moments import ClassMoments
from deadweight.probes.states.feature_sample import FeatureSample
from deadweight.probes.states.image_means import ImageMeans
from deadweight.probes.states.positions import PositionNorms
from deadweight.probes.states.scrambling import ScramblingMoments
from deadweight.probes.states.scrambling_sums import ScramblingSums

Inputs = Tensor | Mapping[str, Tensor]

# Class states cost one update of D² or of the sample's size each: items are gathered so that it hardly shows.
_GATHER = 256


def profile(
    model: nn.Module | Anatomy,
    batches: Iterable[Any],
    *,
    probes: str | Sequence[str] = "all",
    device: str | torch.device | None = None,
    attention_layers: int | Sequence[int] | None = None,
) -> DepthProfile:
    """How representations move through the layers of `model`, in one pass over `batches`.

    Parameters
    ----------
    model:
        A module of a known family, or for any other ``dw.anatomy(model, paths=…)``. It runs in eval mode without
        gradients and is left as it was found.
    batches:
        Yields ``(inputs,)``, ``(inputs, labels)`` or ``(inputs, labels, ids)``, ``{"image": …, "label": …}``, or bare
        inputs: a tensor whose first dimension is the batch, or a mapping of such tensors (Hugging Face models). Labels
        are integers, or None. Of texts, padding by their ``attention_mask`` does not count, on whichever side it is.
    probes:
        ``"all"`` or names from ``deadweight list probes``.
    device:
        Where to run; by default where the model is.
    attention_layers:
        Layers, counted from 1, whose attention maps are looked at: None for all, a number for the last so many, or a
        list. The fused kernel stays on for all of them.

    Returns
    -------
    DepthProfile
        Its size does not grow with the number of images; profiles of shards :meth:`~DepthProfile.merge` into the
        profile of the whole. No batches give the identity of merging.

    Raises
    ------
    InputError
        An unknown family or probe, labels or ids that do not fit, NaN activations (which layer, which batch).

    Examples
    --------
    >>> import deadweight as dw, torch
    >>> images = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> found = dw.profile(dw.load("embedded:digits-vit"), [(images, torch.arange(8) % 2)], probes=["influence"])
    >>> list(found.table().columns), len(found.table())
    (['layer', 'influence'], 8)
    """
    check_loader(batches)
    anatomy = model if isinstance(model, Anatomy) else find_anatomy(model)
    names = chosen(probes)
    found = [PROBES.get(name) for name in names]
    per_image = [probe for probe in found if isinstance(probe, ImageProbe)]
    classes = anatomy.kind == "vision" and len(per_image) < len(found)
    facts = facts_of(anatomy)
    states = _States(classes)
    moments = any(isinstance(probe, MomentProbe) for probe in found) and anatomy.kind == "vision"
    sums = ScramblingSums() if moments else None
    layers = _layers(attention_layers, anatomy.depth)
    recorder = Recorder(anatomy, per_image, features=classes, scrambling=sums, layers=layers)
    with examined(anatomy.model, device) as place, recorder:
        for index, batch in enumerate(batches):
            inputs, labels, ids = _unpacked(batch, index)
            if not batch_size(inputs):
                continue
            hashes = item_hashes(inputs, ids)
            inputs = _padded_right(inputs, anatomy)
            recorder.features = classes and labels is not None
            recorder.clear(_mask(inputs, anatomy, place), folds(hashes))
            answers = answers_of(_forward(anatomy.model, inputs, place), facts.outputs)
            with one_blas_thread():
                states.add(recorder.batch(index, hashes, labels, answers))
        remarks = frozenset(recorder.remarks)
    with one_blas_thread():
        scrambling = ScramblingMoments() if sums is None else sums.done()
        return DepthProfile(facts, names, *states.done(), scrambling, head_weights(anatomy), remarks, states.positions)


def _layers(asked: int | Sequence[int] | None, depth: int) -> set[int] | None:
    """Layers counted from 1; None for all."""
    if asked is None:
        return None
    layers = set(range(depth - asked + 1, depth + 1)) if isinstance(asked, int) else {int(layer) for layer in asked}
    for layer in layers:
        if not 1 <= layer <= depth:
            raise InputError(
                f"attention_layers={asked!r}: layer {layer}",
                expected=f"layers from 1 to {depth}",
                cure="give a list of layers, or how many of the last ones",
            )
    return layers


class _States:
    """The states under way, brought up to date every `_GATHER` items."""

    def __init__(self, classes: bool) -> None:
        self._classes = classes
        self._images, self._moments, self._sample = ImageMeans(), ClassMoments(), FeatureSample()
        self.positions = PositionNorms()
        self._waiting: list[Batch] = []

    def add(self, batch: Batch) -> None:
        self._images = self._images.update(batch)
        self.positions = self.positions if batch.positions is None else self.positions.merge(batch.positions)
        if self._classes and batch.labels is not None:
            self._waiting.append(batch)
            if sum(len(waiting.hashes) for waiting in self._waiting) >= _GATHER:
                self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        labels = np.concatenate([batch.labels for batch in self._waiting if batch.labels is not None])
        features = {
            name: np.concatenate([batch.features[name] for batch in self._waiting])
            for name in self._waiting[0].features
        }
        answers = [batch.predicted for batch in self._waiting if batch.predicted is not None]
        predicted = np.concatenate(answers) if len(answers) == len(self._waiting) else None
        gathered = Batch(np.concatenate([batch.hashes for batch in self._waiting]), {}, labels, features, predicted)
        self._waiting.clear()
        self._moments = self._moments.update(gathered)
        self._sample = self._sample.update(gathered)

    def done(self) -> tuple[ImageMeans, ClassMoments, FeatureSample]:
        self._flush()
        return self._images, self._moments, self._sample


def _unpacked(batch: Any, index: int) -> tuple[Inputs, Labels | None, Any]:
    """(inputs, labels, ids) of what `batches` yielded."""
    if isinstance(batch, Mapping):
        batch = inputs_and_labels(batch)
    parts = [batch] if isinstance(batch, Tensor) else list(batch)
    if not 1 <= len(parts) <= 3 or not isinstance(parts[0], (Tensor, Mapping)):
        raise InputError(
            f"batch {index} is a {type(batch).__name__} of {len(parts)} parts",
            expected="(inputs,), (inputs, labels) or (inputs, labels, ids), inputs a tensor or a mapping of tensors",
        )
    inputs: Inputs = parts[0]
    labels, ids = ([*parts[1:], None, None])[:2]
    if labels is None:
        return inputs, None, ids
    values = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if values.ndim != 1 or values.dtype.kind not in "iub" or len(values) != batch_size(inputs):
        raise InputError(
            f"batch {index} has labels of shape {values.shape} and type {values.dtype} for {batch_size(inputs)} inputs",
            expected="one integer an input, or None",
        )
    return inputs, values.astype(np.int64), ids


def _padded_right(inputs: Inputs, anatomy: Anatomy) -> Inputs:
    """The texts of a language model's batch with their padding moved behind them, where it changes nothing.

    A model that counts positions from the left edge, or that heeds no mask, makes other numbers of a text behind
    padding. Texts with holes are left as they are.
    """
    mask = None if isinstance(inputs, Tensor) else inputs.get("attention_mask")
    if anatomy.kind != "causal_lm" or isinstance(inputs, Tensor) or mask is None or mask.dim() != 2:
        return inputs
    kept_BT = mask.bool()
    starts_B, counts_B = kept_BT.int().argmax(1), kept_BT.sum(1)
    places_T = torch.arange(mask.shape[1], device=mask.device)
    whole_BT = (places_T >= starts_B[:, None]) & (places_T < (starts_B + counts_B)[:, None])
    if not starts_B.any() or not torch.equal(kept_BT, whole_BT):
        return inputs
    order_BT = (places_T + starts_B[:, None]) % mask.shape[1]
    return {
        name: value.gather(1, order_BT.to(value.device)) if value.shape == mask.shape else value
        for name, value in inputs.items()
    }


def _mask(inputs: Inputs, anatomy: Anatomy, place: torch.device) -> Tensor | None:
    """Which tokens of a language model's batch are not padding; None when all are."""
    if anatomy.kind != "causal_lm" or isinstance(inputs, Tensor):
        return None
    mask = inputs.get("attention_mask")
    if mask is None or mask.dim() != 2 or bool(mask.all()):
        return None
    return mask.bool().to(place)


def _forward(model: nn.Module, inputs: Inputs, place: torch.device) -> Any:
    """What the model makes of `inputs`, which are moved to its device, floating ones cast to its type."""
    kinds = (weight.dtype for weight in model.parameters() if weight.is_floating_point())
    dtype = next(kinds, torch.float32)

    def ready(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.to(place, dtype) if value.is_floating_point() else value.to(place)

    with torch.inference_mode():
        if isinstance(inputs, Tensor):
            return model(ready(inputs))
        return model(**{name: ready(value) for name, value in inputs.items()})
