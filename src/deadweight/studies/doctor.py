"""What this machine can measure, and what to do about what it can't."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from deadweight.errors import SourceError
from deadweight.meters import described, energy_sources, machine
from deadweight.models.embedded import SMOLLM2, language_source
from deadweight.source import parse_source

_ROOM = 2 * 2**30


@dataclass(frozen=True)
class Check:
    """One thing looked at: whether it is as one would like, what was found, and what to do if it is not."""

    what: str
    good: bool
    found: str
    cure: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def _language() -> Check:
    try:
        found = language_source(parse_source(f"embedded:{SMOLLM2}"))
    except SourceError as problem:
        return Check("language model", False, problem.given, problem.cure)
    return Check("language model", True, Path(found.name).name)


def _accelerator() -> Check:
    if torch.accelerator.is_available():
        return Check("accelerator", True, str(torch.accelerator.current_accelerator()))
    return Check("accelerator", False, "none; everything runs on the CPU", "install a torch build for your device")


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free
    return Check("disk", free > _ROOM, f"{free / 2**30:.1f} GiB free here", "" if free > _ROOM else "free some space")


def examine() -> list[Check]:
    """All checks, in the order they are told."""
    checks = [Check("machine", True, described(machine())), _accelerator(), _language(), _disk()]
    checks += [
        Check(f"energy: {source.name}", source.available, source.reason or source.provenance, source.cure)
        for source in energy_sources()
    ]
    return checks
