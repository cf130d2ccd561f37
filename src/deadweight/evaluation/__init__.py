"""What models answer: predictions about images, losses on text, and the inputs both are asked on."""

from deadweight.evaluation.classification import (
    ReferencePredictions,
    batches,
    from_bits,
    label_places,
    predictions,
    reference_predictions,
    stratified_subset,
    to_bits,
)
from deadweight.evaluation.outputs import logits_of
from deadweight.evaluation.token_loss import nats_per_token
from deadweight.evaluation.tokenized_text import token_sequences

__all__ = [
    "ReferencePredictions",
    "batches",
    "from_bits",
    "label_places",
    "logits_of",
    "nats_per_token",
    "predictions",
    "reference_predictions",
    "stratified_subset",
    "to_bits",
    "token_sequences",
]
