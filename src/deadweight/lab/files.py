"""Files that survive: written whole or not at all, made durable, and errors that name the path and the cure."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deadweight.errors import MachineError

_CURES = {
    errno.ENOSPC: "free some space or choose another --out; finished cells are kept and the same command goes on",
    errno.EDQUOT: "the quota is used up: free some space or choose another --out; finished cells are kept",
    errno.EACCES: "choose a folder you may write to with --out",
    errno.EPERM: "choose a folder you may write to with --out",
    errno.EROFS: "the file system is read-only: choose another folder with --out",
    errno.ENOTDIR: "a part of that path is a file: choose another folder with --out",
    errno.EEXIST: "a file of that name is in the way: choose another folder with --out",
}
DISK = frozenset({errno.ENOSPC, errno.EROFS, errno.EDQUOT})  # no cell can do better than the one that met it


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """Turn the disk's refusals into :class:`MachineError` (exit code 3) that names the path and the cure."""
    try:
        yield
    except OSError as problem:
        if isinstance(problem, MachineError):
            raise
        raise MachineError(
            f"cannot write {path}: {problem.strerror or problem}",
            expected="a folder that can be written and has room",
            cure=_CURES.get(problem.errno or 0, "choose another folder with --out"),
        ) from problem


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write `content` so that a reader, or a crash at any moment, sees the old file or the new one, never a part.

    The file gets the permissions the umask gives any new file. What Unicode cannot say, such as a byte of a file's name
    that is no text, is written as an escape, which JSON reads back as it was.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        name = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            name.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename or a new entry durable. Windows cannot open folders, and needs no such thing."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
