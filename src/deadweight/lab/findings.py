"""Findings: a claim in a sentence, its estimate and interval, the evidence, and a verdict."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deadweight.lab.cell import Json
from deadweight.lab.files import write_atomically
from deadweight.notebook import table_html
from deadweight.statistics import LEVEL, Estimate, holm

Verdict = Literal["dead weight", "needed", "undecided"]
SCHEMA = 1


@dataclass(frozen=True)
class Finding:
    """One thing found.

    estimate, low, high:  of the loss from removal where there is a `margin`, else of the quantity claimed.
    margin:               what one is willing to lose; None for costs and descriptions, which get no verdict.
    p:                    two-sided against the margin; Holm's correction within a study works on it.
    evidence:             keys of the cells it was computed from.
    command:              what a person types to see it again.
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

    @classmethod
    def of(
        cls,
        id: str,
        study: str,
        claim: str,
        estimate: Estimate,
        unit: str,
        *,
        margin: float | None = None,
        evidence: Sequence[str] = (),
        command: str = "",
    ) -> Finding:
        """From an :class:`Estimate`; the verdict is given by :func:`settle`."""
        return cls(
            id=id,
            study=study,
            claim=claim,
            estimate=estimate.value,
            unit=unit,
            low=estimate.low,
            high=estimate.high,
            n=estimate.n,
            margin=margin,
            evidence=tuple(evidence),
            command=command,
            p=estimate.p,
        )

    def as_json(self) -> dict[str, Json]:
        return {
            "id": self.id,
            "study": self.study,
            "claim": self.claim,
            "estimate": _finite(self.estimate),
            "unit": self.unit,
            "interval": [_finite(self.low), _finite(self.high)],
            "level": self.level,
            "n": self.n,
            "verdict": self.verdict,
            "margin": self.margin,
            "evidence": list(self.evidence),
            "command": self.command,
        }


def _finite(value: float | None) -> float | None:
    """JSON has no infinity: an end the data cannot bound is null."""
    return None if value is None or not math.isfinite(value) else value


def settle(findings: Sequence[Finding]) -> list[Finding]:
    """Give every finding that has a margin its verdict.

    *dead weight*: the whole interval of the loss lies below the margin; *needed*: wholly above it; either only if
    the p-value against the margin survives Holm's correction among the findings of the same study; else *undecided*.
    """
    settled = list(findings)
    for study in {finding.study for finding in findings}:
        judged = [i for i, f in enumerate(settled) if f.study == study and f.margin is not None]
        adjusted = holm([1.0 if (p := settled[i].p) is None else p for i in judged])
        for i, p in zip(judged, adjusted, strict=True):
            settled[i] = dataclasses.replace(settled[i], verdict=_verdict(settled[i], p))
    return settled


def _verdict(finding: Finding, p: float) -> Verdict:
    low, high, margin = finding.low, finding.high, finding.margin
    if low is None or high is None or margin is None or p > 1 - finding.level:
        return "undecided"
    if high < margin:
        return "dead weight"
    return "needed" if low > margin else "undecided"


class Findings(Sequence[Finding]):
    """Findings in the order they are told; knows where it was written and what was skipped.

    failed: cells without a record; orphans: records that no cell of the study asks for any more.
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
        self.page, self.skipped, self.failed, self.orphans = page, list(skipped), failed, orphans

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
