"""What follows from the depth study's records: a verdict a block, and what the profile shows."""

from __future__ import annotations

import dataclasses

from deadweight.lab import Estimate, Finding, Json, Record, Records, accuracy_loss, holm
from deadweight.studies.answers import from_bits

MOST = 8  # blocks that get a finding of their own; of deeper models, the least needed


def findings(records: Records, *, margin: float, command: str) -> list[Finding]:
    """Findings of the study's records, verdicts not yet given."""
    found: list[Finding] = []
    for record in records.where(kind="skip"):
        found += block_findings(record, margin, command)
    for record in records.where(kind="profile"):
        found += profile_findings(record, margin, command)
    return found


def block_losses(record: Record, margin: float) -> list[tuple[int, Estimate]]:
    """(block counted from 1, loss when it is removed) of a skip cell, for the blocks that could be removed."""
    intact = from_bits(record.result["intact"])
    return [
        (int(block["block"]), accuracy_loss(intact, from_bits(block["correct"]), margin))
        for block in record.result["blocks"]
        if block["correct"] is not None
    ]


def block_findings(record: Record, margin: float, command: str) -> list[Finding]:
    """One finding a block; of more than `MOST` blocks the least needed, their p-values corrected for all of them."""
    if not record.result["measure"] or not record.result["blocks"]:
        return []
    losses = block_losses(record, margin)
    if len(losses) > MOST:
        corrected = holm([1.0 if loss.p is None else loss.p for _, loss in losses])
        judged = [(block, dataclasses.replace(loss, p=p)) for (block, loss), p in zip(losses, corrected, strict=True)]
        losses = sorted(sorted(judged, key=lambda item: item[1].high)[:MOST], key=lambda item: item[0])
    depth = len(record.result["blocks"])
    agreement = record.result["measure"] == "agreement"
    before = sum(from_bits(record.result["intact"])) / record.result["n"]
    trained = bool(record.cell.params.get("trained")) and bool(record.result["works"])
    return [
        Finding.of(
            f"depth-block-{block}",
            "depth",
            _changes(block, depth, loss) if agreement else _costs(block, depth, loss, before),
            loss,
            "share" if agreement else "accuracy",
            margin=margin if trained else None,
            evidence=(record.key,),
            command=command,
        )
        for block, loss in losses
    ]


def profile_findings(record: Record, margin: float, command: str) -> list[Finding]:
    """Useful depth, similarity and the weight of the positional encoding: described, not judged."""
    result = record.result
    found: list[Finding] = []
    if result["readout_loss"]:
        layer, row = useful(result["readout_loss"], result["depth"], margin)
        found.append(_described("depth-useful", _readable(layer, row, result, margin), row, "loss", "accuracy"))
    rows = {(row["column"], row["layer"]): row for row in result["intervals"]}
    first, last = rows.get(("raw_similarity", 0)), rows.get(("raw_similarity", result["depth"]))
    if first and last:
        way = "grow more alike" if last["value"] > first["value"] else "grow apart"
        claim = (
            f"The patches of an image {way} on their way through the blocks: their mean cosine goes from "
            f"{first['value']:.2f} before the first block to {last['value']:.2f} after the last."
        )
        found.append(_described("depth-similarity", claim, last, "value", "cosine"))
    encoding = rows.get(("pe_dominance", 0))
    if encoding:
        claim = (
            f"The positional encoding is {encoding['value']:.2f} times as long as the patch embeddings it is added to."
        )
        found.append(_described("depth-positions", claim, encoding, "value", "ratio"))
    return [dataclasses.replace(one, evidence=(record.key,), command=command) for one in found]


def useful(losses: list[Json], depth: int, margin: float) -> tuple[int, Json]:
    """The smallest layer whose whole interval of the readout's loss lies below the margin, and its row."""
    return next(
        ((int(row["layer"]), row) for row in losses[: depth + 1] if row["high"] < margin), (depth, losses[depth])
    )


def _readable(layer: int, row: Json, result: Json, margin: float) -> str:
    depth = result["depth"]
    if layer >= depth:
        return (
            f"The classes become easier to read off up to the last of the {depth} blocks: a nearest-class-mean "
            f"readout is not within {points(margin)} of its accuracy there after any earlier one."
        )
    where = f"after block {layer} of {depth}" if layer else "before the first block"
    return (
        f"The classes can be read off {where} as well as at the end: a nearest-class-mean readout there is within "
        f"{points(margin)} of its accuracy after the last block."
    )


def _costs(block: int, depth: int, loss: Estimate, before: float) -> str:
    change = f"({100 * before:.1f} % → {100 * (before - loss.value):.1f} %)"
    if loss.value > 0:
        return f"Removing block {block} of {depth} costs {points(loss.value)} of accuracy {change}."
    if loss.value < 0:
        return f"Removing block {block} of {depth} raises accuracy by {points(-loss.value)} {change}."
    return f"Removing block {block} of {depth} leaves accuracy as it is ({100 * before:.1f} %)."


def _changes(block: int, depth: int, loss: Estimate) -> str:
    return f"Removing block {block} of {depth} changes {100 * loss.value:.1f} % of the model's predictions."


def points(share: float) -> str:
    """0.01 is one point of accuracy."""
    value = f"{100 * share:.3g}"
    return f"{value} point" if value == "1" else f"{value} points"


def _described(name: str, claim: str, row: Json, value: str, unit: str) -> Finding:
    return Finding(name, "depth", claim, row[value], unit, row["low"], row["high"], int(row["n"]))
