"""From a study's records to the report's page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deadweight.lab import Records
from deadweight.meters import described
from deadweight.report import write_page
from deadweight.studies.recommend import actions
from deadweight.studies.study import Study


def facts(records: Records) -> dict[str, str]:
    """Machine and versions, from the records' own context: what computed the numbers, not what draws the page."""
    if not len(records):
        return {}
    context: Any = records[0].context
    versions = ", ".join(f"{name} {version}" for name, version in context.get("versions", {}).items() if version)
    told = {
        "Machine": described(context["machine"]),
        "Threads": context.get("threads"),
        "Python": context.get("python"),
        "Versions": versions,
        "Commit": context.get("commit"),
        "Time in cells": f"{sum(float(record.measured.get('seconds', 0)) for record in records):.0f} s",
    }
    return {name: str(value) for name, value in told.items() if value is not None}


def write_report(path: Path, study: Study, records: Records, skipped: Sequence[tuple[str, str]]) -> Path:
    """Draw the page of `records` at `path`."""
    findings = [finding.as_json() for finding in records.findings()]
    return write_page(
        path,
        title=study.title,
        subtitle=study.subtitle,
        findings=findings,
        sections=study.sections(records),
        facts=facts(records),
        actions=actions(path.parent, findings),
        skipped=list(skipped),
        failed=[
            {"cell": failure.cell.label, "error": failure.error, "attempts": failure.attempts}
            for failure in records.failed
        ],
    )
