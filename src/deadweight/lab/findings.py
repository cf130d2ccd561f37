"""Findings: a claim in a sentence, its estimate and interval, the evidence, and a verdict."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from deadweight.lab.cell import Json
from deadweight.lab.files import write_atomically
from deadweight.notebook import table_html
from deadweight.statistics import LEVEL, Source, Verdict

SCHEMA = 2


@dataclass(frozen=True)
class Finding:
    """One thing found.

    estimate, low, high:  of the loss from removal where there is a `margin`, else of the quantity claimed.
    label, level:         what low to high is: ``95 % interval``; at level 0 the range of a few repetitions, no more.
    margin:               what one is willing to lose; None for costs and descriptions, which get no verdict.
    p:                    two-sided against the margin, corrected for all that the study judges.
    sources:              what was sampled (items, seeds, rounds …) and what each adds to the uncertainty.
    evidence:             keys of the cells it was computed from.
    command:              what a person types to see it again.
    remedy:               what to do about it, as :class:`deadweight.studies.frame.Remedy` writes it down.

    >>> Finding("mlp-x", "mlp", "Cutting it costs nothing.", 0.0, "accuracy", -0.004, 0.004, 900).as_json()["interval"]
    [-0.004, 0.004]
    """

    id: str
    study: str
    claim: str
    estimate: float | None
    unit: str
    low: float | None
    high: float | None
    n: int
    verdict: Verdict | None = None
    margin: float | None = None
    evidence: tuple[str, ...] = ()
    command: str = ""
    level: float = LEVEL
    p: float | None = None
    label: str = "95 % interval"
    sources: tuple[Source, ...] = ()
    remedy: Mapping[str, Json] | None = None

    def as_json(self) -> dict[str, Json]:
        return {
            "id": self.id,
            "study": self.study,
            "claim": self.claim,
            "estimate": _finite(self.estimate),
            "unit": self.unit,
            "interval": [_finite(self.low), _finite(self.high)],
            "label": self.label,
            "level": self.level,
            "n": self.n,
            "p": _finite(self.p),
            "verdict": self.verdict,
            "margin": self.margin,
            "sources": [asdict(source) for source in self.sources],
            "evidence": list(self.evidence),
            "command": self.command,
            "remedy": None if self.remedy is None else dict(self.remedy),
        }


def _finite(value: float | None) -> float | None:
    """JSON has no infinity: an end the data cannot bound is null."""
    return None if value is None or not math.isfinite(value) else value


class Findings(Sequence[Finding]):
    """Findings in the order they are told; knows where it was written and what was skipped.

    failed: cells without a record; orphans: records that no cell of the study asks for any more.

    >>> one = Finding("mlp-x", "mlp", "Cutting it costs nothing.", 0.0, "accuracy", -0.004, 0.004, 900)
    >>> len(Findings([one])), Findings([one])[0].id
    (1, 'mlp-x')
    """

    def __init__(
        self,
        findings: Sequence[Finding],
        *,
        page: Path | None = None,
        skipped: Sequence[tuple[str, str]] = (),
        failed: int = 0,
        orphans: int = 0,
    ) -> None:
        self._findings = list(findings)
        self.page: Path | None = page
        self.skipped: list[tuple[str, str]] = list(skipped)
        self.failed: int = failed
        self.orphans: int = orphans

    def __getitem__(self, index: int) -> Finding:  # type: ignore[override]  # slices are not offered
        return self._findings[index]

    def _repr_html_(self) -> str:
        rows = (
            (one.verdict or "measured", one.claim, _finite(one.estimate), _finite(one.low), _finite(one.high), one.unit,
             one.n)
            for one in self._findings
        )  # fmt: skip
        head = ["verdict", "finding", "estimate", "from", "to", "unit", "n"]
        notes = [f"{name} skipped: {reason}" for name, reason in self.skipped]
        return table_html(f"{len(self)} findings", head, rows, notes=notes)

    def __len__(self) -> int:
        return len(self._findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self._findings)

    def as_json(self) -> dict[str, Json]:
        return {"schema": SCHEMA, "findings": [finding.as_json() for finding in self._findings]}

    def write(self, path: Path) -> None:
        """Write ``findings.json``, atomically."""
        write_atomically(path, json.dumps(self.as_json(), indent=1, ensure_ascii=False, allow_nan=False))
