"""One lock a machine: cells that time things run alone on it, all others side by side.

Readers and a writer on ``flock``: ordinary cells share the room, a timing cell has it to itself. Whoever enters
passes the door first, and a timing cell holds the door while it waits, so newcomers cannot keep it waiting for ever.
The system lets go of the locks of a process that dies.

filelock's own read-write lock (looked at in 4.2.12) is as fair, but its file has mode 0600: on a machine that several
people use, all but the first are refused. Here the file may be another user's.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

_NAME = "deadweight-machine"


@contextmanager
def machine(*, alone: bool, waiting: Callable[[], None] | None = None) -> Iterator[bool]:
    """Be one of many on this machine, or alone; whether others had to be waited for.

    `waiting` is called before a wait, at most twice: at the door and at the room.
    """
    if os.name == "nt":  # no shared locks there: timing cells at least never meet each other
        if not alone:
            yield False
            return
        with FileLock(_path("room")):
            yield False
        return
    import fcntl

    door, room = _open("door"), _open("room")
    try:
        waited = _take(door, fcntl.LOCK_EX, waiting)
        waited |= _take(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH, waiting)
        fcntl.flock(door, fcntl.LOCK_UN)
        yield waited
    finally:
        os.close(door)
        os.close(room)


def _take(handle: int, how: int, waiting: Callable[[], None] | None) -> bool:
    """Take a lock; whether it had to be waited for."""
    import fcntl

    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        if waiting is not None:
            waiting()
        fcntl.flock(handle, how)
        return True
    return False


def _path(part: str) -> Path:
    return Path(tempfile.gettempdir()) / f"{_NAME}.{part}"


def _open(part: str) -> int:
    """The lock's file, opened for reading only: it may belong to another user of the machine."""
    path = _path(part)
    while True:
        with suppress(FileNotFoundError):
            return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with suppress(FileExistsError):
            handle = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            os.fchmod(handle, 0o644)
            return handle
