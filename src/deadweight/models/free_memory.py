"""How much memory is still to be had: of the machine, or of the container the process lives in."""

from __future__ import annotations

from pathlib import Path

import psutil

GROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def free_memory(group: Path | None = None) -> int:
    """Bytes still to be had.

    A control group counts where its limit leaves less than the machine has, its own and all those it lies in, of
    version 2 (``memory.max``) and 1 (``memory.limit_in_bytes``). Files the kernel keeps at hand and would drop
    (``inactive_file``) are free.

    Parameters
    ----------
    group: the folder of one control group, instead of those of this process.

    Examples
    --------
    >>> free_memory() > 0
    True
    """
    free = int(psutil.virtual_memory().available)
    for one in [group] if group is not None else _groups():
        left = _left(one)
        if left is not None:
            free = min(free, max(0, left))
    return free


def _groups() -> list[Path]:
    """The process's own groups and the ones above, as far as they can be seen from inside."""
    found = [GROUPS, GROUPS / "memory"]
    try:
        lines = _MEMBERSHIP.read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds in ("", "memory"):
            place = GROUPS / kinds if kinds else GROUPS
            own = Path(path.lstrip("/"))
            found += [place / own, *(place / above for above in own.parents)]
    return list(dict.fromkeys(found))


def _left(group: Path) -> int | None:
    for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        try:
            most = (group / limit).read_text().strip()
            if most != "max":
                return int(most) - int((group / used).read_text()) + _droppable(group)
        except (OSError, ValueError):
            continue
    return None


def _droppable(group: Path) -> int:
    try:
        lines = (group / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    names = dict(line.split(maxsplit=1) for line in lines if " " in line)
    return int(names.get("total_inactive_file", names.get("inactive_file", "0")))
