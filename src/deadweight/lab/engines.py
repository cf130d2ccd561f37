"""The engines by name, for ``dw.run(..., executor=NAME)``."""

from __future__ import annotations

from collections.abc import Callable

from deadweight.lab.executor import Engine, InProcess
from deadweight.lab.limits import Limits
from deadweight.registry import Registry

EXECUTORS: Registry[Callable[[Limits], Engine]] = Registry("executor")
EXECUTORS.add("local", "deadweight.lab.engines:local")
EXECUTORS.add("ray", "deadweight.lab.ray:Cluster")


def local(limits: Limits) -> Engine:
    """This machine: in this process where nothing asks for more, else in worker processes."""
    if limits.jobs in (None, 1) and limits.timeout is None and limits.memory is None:
        return InProcess()
    from deadweight.lab.local import Processes

    return Processes(limits)
