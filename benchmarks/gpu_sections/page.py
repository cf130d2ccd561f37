"""docs/results/gpu.md from the JSON of a run; without one, the page that says that no GPU has been reached."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpu_sections.paper import PUBLISHED_MJ, agreement, ranking
from gpu_sections.plan import OK, Row

Document = Mapping[str, Any]

TITLE = "# What a GPU says\n"
NO_RUN = Path(__file__).with_name("no_run.md")  # what the page says until there is a run
AFTER = "\n## What the run will measure"


def page(document: Document | None) -> str:
    """Markdown."""
    if document is None or not _measured(document):
        text = NO_RUN.read_text(encoding="utf-8")
        return text if document is None else text.replace(AFTER, f"\nThe last try: {_tried(document)}\n{AFTER}")
    parts = [TITLE, _card(document)]
    if document["rehearsal"]:
        parts.append("**A rehearsal on a CPU, at sizes that tell nothing. None of these figures means anything.**\n")
    parts += [_correctness(document), _joules(document), _ranks(document), _speed(document), _ratios(document)]
    parts.append(_not_done(document))
    return "\n".join(part for part in parts if part)


def rows(document: Document, section: str) -> list[Row]:
    found: list[Row] = document["sections"].get(section, {}).get("rows", [])
    return found


def _measured(document: Document) -> bool:
    return any(row["status"] == OK for section in document["sections"].values() for row in section["rows"])


def _tried(document: Document) -> str:
    told = [section["reason"] for section in document["sections"].values() if section["reason"]]
    return told[0] if told else "it said nothing."


def _named(document: Document, section: str, name: str) -> Row:
    return next((row for row in rows(document, section) if row["name"] == name), {})


def _card(document: Document) -> str:
    card, driver = _named(document, "machine", "card"), _named(document, "machine", "NVML")
    versions = {
        k: v for k, v in _named(document, "machine", "versions").items() if k not in ("name", "status", "reason")
    }
    peaks = [
        f"{row['name'].removeprefix('peak, ')} {row['flops_per_second'] / 1e12:.3g} TFLOP/s"
        for row in rows(document, "machine")
        if row["name"].startswith("peak") and row["status"] == OK
    ]
    told = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    return (
        f"Measured on {card.get('card', 'an unknown card')}, driver {driver.get('driver', 'unknown')}; "
        f"{told or 'versions unknown'}. Largest matrix products, measured: {', '.join(peaks) or 'not measured'}.\n\n"
        "    python benchmarks/gpu.py --out gpu.json\n"
    )


def _correctness(document: Document) -> str:
    judged = [row for row in rows(document, "correctness") if "error" in row]
    if not judged:
        return ""
    lines = [
        [row["name"], row.get("kernel", ""), _number(row["error"]), _number(row.get("gradient_error")),
         _number(row["bound"]), "" if row["status"] == OK else f"**{row['status']}**"]
        for row in judged
    ]  # fmt: skip
    wrong = sum(row["status"] != OK for row in judged)
    lead = (
        f"{len(judged) - wrong} of {len(judged)} comparisons are within their bounds; errors are "
        "‖found − exact‖ / ‖exact‖.\n"
    )
    head = ["what", "kernel", "error", "of the gradients", "bound", ""]
    return f"## Against the CPU's float64\n\n{lead}\n{_table(head, lines)}"


def _by_mechanism(document: Document, length: int) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows(document, "joules"):
        if row["status"] == OK and row.get("length") == length:
            found.setdefault(row["mechanism"], []).append(row)
    return found


def _middle(told: Iterable[Row], way: str, name: str) -> float | None:
    values = [row[way][name] for row in told if row[way][name] is not None]
    return statistics.median(values) if values else None


def _joules(document: Document) -> str:
    lengths = sorted({row["length"] for row in rows(document, "joules") if "length" in row})
    if not lengths:
        return ""
    steps = {f"{row['length'] * row['batch']:,}" for row in rows(document, "joules") if "length" in row}
    parts = ["## Joules\n"]
    rests = [row for row in rows(document, "joules") if row["name"].startswith("power at rest")]
    for rest in rests:
        told = f"{_number(rest.get('watts'))} W" if rest.get("watts") is not None else "missing"
        parts.append(f"{rest['name'].capitalize()}: {told}. {rest['reason']}".rstrip() + "\n")
    parts.append(
        f"GPT-2 small, {' or '.join(sorted(steps))} tokens a step. Joules are above the power at rest; in brackets "
        "all that the counter counted. "
        "*Integrated* is the integral of the sampled power over the counter's joules.\n"
    )
    head = [
        "mechanism", "kernel", "µJ per token, a training step", "µJ per token, forward", "step, ms", "forward, ms",
        "MFU of the step", "peak, MB", "integrated",
    ]  # fmt: skip
    for length in lengths:
        found = _by_mechanism(document, length)
        lines = []
        for name, told in found.items():
            energies = [
                f"{_micro(_middle(told, way, 'joules_per_token_above_idle'))} "
                f"({_micro(_middle(told, way, 'joules_per_token'))})"
                for way in ("step", "forward")
            ]
            seconds = [_milli(_middle(told, way, "seconds")) for way in ("step", "forward")]
            peak = _middle(told, "step", "peak_bytes")
            lines.append(
                [name, told[0]["kernel"], *energies, *seconds, _number(_middle(told, "step", "mfu")),
                 _number(None if peak is None else peak / 1e6),
                 _number(_middle(told, "step", "integrated_over_counted"))]
            )  # fmt: skip
        parts.append(f"### {length:,} tokens\n\n{_table(head, lines)}")
    return "\n".join(parts)


def energies(document: Document, length: int, name: str = "joules_per_token_above_idle") -> dict[str, float]:
    """Joules per token of a training step by mechanism, those that were read: medians of the rounds."""
    found = {one: _middle(told, "step", name) for one, told in _by_mechanism(document, length).items()}
    return {one: value for one, value in found.items() if value is not None and one in PUBLISHED_MJ}


def _ranks(document: Document) -> str:
    lengths = sorted({row["length"] for row in rows(document, "joules") if "length" in row})
    if not lengths:
        return ""
    ours = energies(document, lengths[0])
    if not ours:
        why = next((row["reason"] for row in rows(document, "joules") if row["reason"]), "no counter was read")
        return f"## The published order\n\nNot compared: {why}.\n"
    order = ranking(ours)
    lines = [
        [place, name, f"{PUBLISHED_MJ[name]:.2f}", order.index(name) + 1 if name in ours else "missing",
         _micro(ours.get(name))]
        for place, name in enumerate(ranking(PUBLISHED_MJ), start=1)
    ]  # fmt: skip
    same = agreement(ours, PUBLISHED_MJ)
    lead = (
        f"arXiv 2507.07247 trained GPT-2 on 512 tokens; ours are training steps on {lengths[0]}. Kendall's τ of the "
        f"two orders: {_number(same)}. What its code calls by these names is not always what they mean: "
        "[published comparisons](../explanation/published-comparisons.md).\n"
    )
    head = ["place there", "mechanism", "MJ of a training, published", "place here", "µJ per token, here"]
    return f"## The published order\n\n{lead}\n{_table(head, lines)}"


def _speed(document: Document) -> str:
    timed = [row for row in rows(document, "speed") if "seconds" in row]
    if not timed:
        return ""
    lines = [
        [row["name"], row.get("kernel", ""), f"{_milli(row['seconds'])} ({_milli(row['low'])} … {_milli(row['high'])})",
         _number(row["mfu"]), _number(row["over_sdpa"]), _against(row)]
        for row in timed
    ]  # fmt: skip
    head = ["what", "kernel", "ms", "MFU", "over causal SDPA", "over the fastest other"]
    lead = "Attention alone, forward and backward, in turns; medians, and the least and largest.\n"
    return f"## Kernels\n\n{lead}\n{_table(head, lines)}"


def _against(row: Row) -> str:
    if "over_best" not in row:
        return ""
    return f"{_number(row['over_best'])} ({row['best']}){'' if row['reached'] else ': not reached'}"


def _ratios(document: Document) -> str:
    found = [row for name in ("profile", "scorer", "training") for row in rows(document, name) if "ratio" in row]
    if not found:
        return ""
    lines = [
        [row["name"], f"{_number(row['ratio'])} ({_number(row['low'])} … {_number(row['high'])})",
         _milli(row["ours_seconds"]), _milli(row["theirs_seconds"]), _number(row["goal"]),
         "reached" if row["reached"] else "**not reached**"]
        for row in found
    ]  # fmt: skip
    return "## Ours over theirs\n\n" + _table(["what", "ratio", "ours, ms", "theirs, ms", "goal", ""], lines)


def _not_done(document: Document) -> str:
    lines = [
        [name, row["name"], row["status"], row["reason"]]
        for name, section in document["sections"].items()
        for row in section["rows"]
        if row["status"] != OK
    ]
    lines += [
        [name, "the section", "cut" if section["status"] == "under way" else section["status"], section["reason"]]
        for name, section in document["sections"].items()
        if section["status"] != "done"
    ]
    if not lines:
        return ""
    return "## What is not there\n\n" + _table(["section", "what", "status", "why"], lines)


def _table(head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    told = ["| " + " | ".join(_cell(one) for one in line) + " |" for line in (head, *lines)]
    return "\n".join([told[0], "|" + "---|" * len(head), *told[1:]]) + "\n"


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _number(value: object) -> str:
    """Three digits; a dash where there is none; what was no number as it is written."""
    if value is None:
        return "–"
    if not isinstance(value, int | float):
        return str(value)
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}").replace("-", "−")


def _milli(value: object) -> str:
    return _number(value * 1e3 if isinstance(value, int | float) else value)


def _micro(value: object) -> str:
    return _number(value * 1e6 if isinstance(value, int | float) else "missing" if value is None else value)
