"""The options of `run` that say where cells run and what they may use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from cyclopts import Group, Parameter

from deadweight.cli.options import duration
from deadweight.cli.whole import Whole
from deadweight.errors import InputError

_SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*(kb|mb|gb|tb)?$", re.IGNORECASE)
_UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


@Parameter(name="*", group=Group("Where cells run", sort_key=8))
@dataclass(frozen=True)
class Where:
    """Where the cells of a run are done; the results are the same everywhere.

    Args:
        executor: local (this machine) or ray (a cluster; needs the extra `ray`).
        jobs: cells at a time; 0: one a core; default: one here, as many as have room on a cluster.
        timeout: what one cell may take, e.g. 30min; a longer one fails.
        memory: what one cell may allocate, e.g. 4GB; a hungrier one fails, and no more run at a time than fit.
        retries: how often a cell is tried again whose process or node died under it.
        address: of the Ray cluster, e.g. auto or ray://head:10001; default: RAY_ADDRESS, else this machine alone.
        cpus: what a cell takes of the cluster.
        gpus: what a cell takes of the cluster.
    """

    executor: str = "local"
    jobs: Whole | None = None
    timeout: str | None = None
    memory: str | None = None
    retries: Whole = 1
    address: str | None = None
    cpus: float = 1
    gpus: float = 0

    def chosen(self) -> dict[str, Any]:
        """The arguments of :func:`deadweight.run`."""
        return {
            "executor": self.executor,
            "jobs": self.jobs,
            "timeout": None if self.timeout is None else duration(self.timeout, "--timeout"),
            "memory": None if self.memory is None else _bytes(self.memory),
            "retries": self.retries,
            "address": self.address,
            "cpus": self.cpus,
            "gpus": self.gpus,
        }


def _bytes(text: str) -> int:
    found = _SIZE.match(text.strip())
    if not found:
        raise InputError(f"--memory {text!r}", expected="a size such as 4GB or 800MB")
    return int(float(found[1]) * _UNITS.get((found[2] or "").lower(), 1))
