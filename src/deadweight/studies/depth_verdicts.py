"""What follows from the depth study's records: a verdict a block, and what the profile shows."""

from __future__ import annotations

import dataclasses
import re

from deadweight.lab import Estimate, Finding, Json, Record, Records, accuracy_loss, bootstrap_mean, holm
from deadweight.studies.answers import from_bits
from deadweight.studies.depth_language import loss_added

MOST = 8  # blocks that get a finding of their own; of deeper models, the least needed


def findings(records: Records, *, margin: float, command: str) -> list[Finding]:
    """Findings of the study's records, verdicts not yet given."""
    found: list[Finding] = []
    for record in records.where(kind="skip"):
        found += block_findings(record, margin, command)
    for record in records.where(kind="profile"):
        found += profile_findings(record, margin, command)
    for kind, of in (("exit", exit_findings), ("shorten", shorten_findings)):
        for record in records.where(kind=kind):
            found += of(record, command)
    for record in records.where(kind="language"):
        found += language_findings(record, margin, command)
    return _told_apart(found, records)


def _told_apart(found: list[Finding], records: Records) -> list[Finding]:
    """The same findings; where several models have them, their ids say whose they are."""
    models = {record.key: record.cell.params.get("small") or record.cell.params.get("vision") for record in records}

    def named(one: Finding) -> Finding:
        model = models.get(one.evidence[0])
        if model is None:  # a language model: there is one
            return one
        name = f"Small ViT of {model} blocks" if isinstance(model, int) else str(model)
        own = one.id.replace("depth-", f"depth-{_slug(name)}-", 1)
        return dataclasses.replace(one, id=own, claim=f"{name}: {one.claim}")

    return [named(one) for one in found] if len({*models.values()} - {None}) > 1 else found


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def language_findings(record: Record, margin: float, command: str) -> list[Finding]:
    """A verdict a block of a language model: the relative rise of its loss on other text without it."""
    result, found = record.result, []
    depth = result["depth"]
    for entry in result["blocks"]:
        if entry["losses"] is None:
            continue
        loss = bootstrap_mean(loss_added(result["intact"], entry["losses"]), margin)
        claim = f"Removing block {entry['block']} of {depth} raises the language model's loss by {loss.value:.1%}."
        name = f"depth-language-block-{entry['block']}"
        found.append((name, claim, loss))
    least = sorted(found, key=lambda one: one[2].high)[:MOST]
    return [
        Finding.of(name, "depth", claim, loss, "fraction", margin=margin, evidence=(record.key,), command=command)
        for name, claim, loss in found
        if (name, claim, loss) in least
    ]


def exit_findings(record: Record, command: str) -> list[Finding]:
    """What leaving at the useful depth costs and gains: measured, not judged."""
    result, speed = record.result, record.measured["speed"]
    loss = accuracy_loss(from_bits(result["whole"]), from_bits(result["exit"]))
    claim = (
        f"Left after block {result['layer']} of {result['depth']} with a readout of its own, the model is "
        f"{speed['speedup']:.2f} times as fast; accuracy falls by {points(loss.value)}."
        if loss.value > 0
        else f"Left after block {result['layer']} of {result['depth']} with a readout of its own, the model is "
        f"{speed['speedup']:.2f} times as fast and no less accurate ({points(-loss.value)} more)."
    )
    return [Finding.of("depth-exit", "depth", claim, loss, "accuracy", evidence=(record.key,), command=command)]


def shorten_findings(record: Record, command: str) -> list[Finding]:
    """What the largest cut costs, its blocks chosen by measured loss and by influence."""
    if not record.result["choices"]:
        return []
    intact, found = from_bits(record.result["intact"]), []
    names = {"measured": "by measured loss", "influence": "by influence"}
    for choice, steps in record.result["choices"].items():
        step = steps[-1]
        refit, plain = (accuracy_loss(intact, from_bits(step[how])) for how in ("refit", "plain"))
        blocks = ", ".join(str(block) for block in step["blocks"])
        claim = (
            f"Without {'block' if len(step['blocks']) == 1 else 'blocks'} {blocks}, chosen {names[choice]}, "
            f"{_change(refit.value)} once the rest is refitted; as it is, {_change(plain.value)}."
        )
        name = f"depth-shorten-{choice}"
        found.append(Finding.of(name, "depth", claim, refit, "accuracy", evidence=(record.key,), command=command))
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


def _change(loss: float) -> str:
    if loss == 0:
        return "accuracy stays"
    return f"accuracy {'falls' if loss > 0 else 'rises'} by {points(abs(loss))}"


def _described(name: str, claim: str, row: Json, value: str, unit: str) -> Finding:
    return Finding(name, "depth", claim, row[value], unit, row["low"], row["high"], int(row["n"]))
