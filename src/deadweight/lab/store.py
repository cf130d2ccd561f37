"""The store: records on disk, each written once, atomically.

``FOLDER/cells/KEY/record.json`` exists only for a cell that succeeded: it is written under a temporary name,
fsynced, renamed, and the folder fsynced. Whatever else lies in a cell's folder without a record is scratch.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from deadweight.errors import MachineError
from deadweight.lab.cell import Cell, Json
from deadweight.lab.records import Failure, Record

_CURES = {
    errno.ENOSPC: "free some space or choose another --out; finished cells are kept and the same command goes on",
    errno.EDQUOT: "the quota is used up: free some space or choose another --out; finished cells are kept",
    errno.EACCES: "choose a folder you may write to with --out",
    errno.EPERM: "choose a folder you may write to with --out",
    errno.EROFS: "the file system is read-only: choose another folder with --out",
    errno.ENOTDIR: "a part of that path is a file: choose another folder with --out",
    errno.EEXIST: "a file of that name is in the way: choose another folder with --out",
}


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


def write_atomically(path: Path, text: str) -> None:
    """Write `text` so that a reader, or a crash at any moment, sees the old file or the new one, never a part."""
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable. Windows cannot open folders, and needs no such thing."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Store:
    """The records of one run folder."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def prepare(self) -> None:
        """Create the folder and prove that it can be written; raises :class:`MachineError` otherwise."""
        with disk(self.folder):
            (self.folder / "cells").mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder) as probe:
                probe.write(b"x")

    def folder_of(self, key: str) -> Path:
        return self.folder / "cells" / key

    def record(self, cell: Cell) -> Record | None:
        """The record of `cell`, None if it has none. A file that is not a whole record is set aside, not trusted."""
        path = self.folder_of(cell.key) / "record.json"
        try:
            return Record.from_json(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            with disk(path):
                path.replace(path.with_name(f"record.corrupt-{time.time_ns()}.json"))
            return None

    def write(self, record: Record) -> None:
        path = self.folder_of(record.key) / "record.json"
        write_atomically(path, json.dumps(record.as_json(), indent=1, ensure_ascii=False, allow_nan=False))

    def fail(self, cell: Cell, error: str, detail: str) -> None:
        """Append a failed attempt; nothing already written is touched."""
        folder = self.folder_of(cell.key) / "attempts"
        attempt: dict[str, Json] = {"cell": cell.identity, "error": error, "detail": detail, "at": time.time()}
        write_atomically(folder / f"{len(self._attempts(cell)) + 1}.json", json.dumps(attempt, indent=1))

    def _attempts(self, cell: Cell) -> list[Path]:
        folder = self.folder_of(cell.key) / "attempts"
        return sorted(folder.glob("*.json"), key=lambda path: int(path.stem)) if folder.is_dir() else []

    def failure(self, cell: Cell) -> Failure:
        """Why `cell` has no record, as far as its attempts say."""
        attempts = self._attempts(cell)
        if not attempts:
            return Failure(cell, "not run yet", 0)
        try:
            error = str(json.loads(attempts[-1].read_text(encoding="utf-8"))["error"])
        except (ValueError, KeyError):
            error = f"the last attempt's file {attempts[-1].name} cannot be read"
        return Failure(cell, error, len(attempts))

    @contextmanager
    def claim(self, cell: Cell) -> Iterator[bool]:
        """Whether this process may work on `cell` now; False while another runner does."""
        with disk(self.folder):
            self.folder_of(cell.key).mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder_of(cell.key) / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()
