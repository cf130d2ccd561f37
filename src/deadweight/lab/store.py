"""The store: records on disk, each written once, atomically.

``FOLDER/cells/KEY/record.json`` exists only for a cell that succeeded: it is written under a temporary name,
fsynced, renamed, and the folder fsynced. Whatever else lies in a cell's folder without a record is scratch.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from deadweight.errors import InputError
from deadweight.lab.cell import Cell, Json
from deadweight.lab.files import disk, sync_folder, write_atomically
from deadweight.lab.records import Failure, Record
from deadweight.lab.serialization import CorruptRecord, decode, encode
from deadweight.secrets import hidden

_KEY = re.compile(r"[0-9a-f]{16}")
_LOCK = ".lock"
_LEFT = re.compile(r"\.(?:study\.yaml|plan\.json|findings\.json|report\.html)\..+|\.cluster-[0-9a-f]+")


class Store:
    """The records of one run folder. Reading changes nothing on disk and works on a read-only folder.

    >>> import tempfile
    >>> store = Store(tempfile.mkdtemp())
    >>> store.record(Cell("mlp", "train", {"seed": 0})) is None
    True
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder: Path = Path(folder)

    def prepare(self, cells: Iterable[Cell] = ()) -> None:
        """Create the folder, prove that it can be written, and make room for `cells`.

        Raises :class:`~deadweight.errors.MachineError` where the machine says no.
        """
        with disk(self.folder):
            (self.folder / "cells").mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder) as probe:
                probe.write(b"x")
            for cell in cells:
                self.folder_of(cell.key).mkdir(exist_ok=True)
            sync_folder(self.folder / "cells")  # once for all: a record then needs only its own folder made durable

    def folder_of(self, key: str) -> Path:
        """The folder of the cell `key`; anything but a key, such as a path, raises :class:`InputError`."""
        if not _KEY.fullmatch(key):
            raise InputError(f"{key!r} is not the key of a cell", expected="16 hexadecimal digits")
        return self.folder / "cells" / key

    def folders(self) -> list[str]:
        """The keys of all cells that have a folder here, planned or not."""
        try:
            with os.scandir(self.folder / "cells") as found:
                return sorted(entry.name for entry in found if _KEY.fullmatch(entry.name))
        except OSError:
            return []

    def look(self, key: str) -> Record | CorruptRecord | None:
        """The record of the cell `key`; None if there is none, and why if there is a file but no record in it."""
        path = self.folder_of(key) / "record.json"
        try:
            text = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as problem:
            return CorruptRecord(problem.strerror or str(problem))
        return decode(text, key)

    def record(self, cell: Cell) -> Record | None:
        """The record of `cell`, None if it has none. A file that is not a whole record is no record."""
        found = self.look(cell.key)
        return found if isinstance(found, Record) else None

    def write(self, record: Record) -> None:
        write_atomically(self.folder_of(record.key) / "record.json", encode(record))

    def tidy(self, key: str) -> list[str]:
        """Set a damaged record aside and remove what a killed writer left; for whoever holds the cell's claim.

        Returns what was done, a sentence each.
        """
        folder, done = self.folder_of(key), []
        with disk(folder):
            if isinstance(found := self.look(key), CorruptRecord):
                name = f"record.corrupt-{secrets.token_hex(6)}.json"  # not the clock's: clocks jump
                (folder / "record.json").replace(folder / name)
                done.append(f"cells/{key}: {found.reason}: set aside as {name}; the next run does the cell again")
            for left in (*folder.glob(".record.json.*"), *folder.glob("attempts/.*")):
                left.unlink(missing_ok=True)
                done.append(f"cells/{key}: removed {left.name}, which a killed run left half written")
        return done

    def repair(self, cells: Iterable[Cell]) -> list[str]:
        """Tidy every cell that no runner works on, and the run folder itself where none works on any; what was done."""
        done, busy = [], False
        for cell in cells:
            if self.folder_of(cell.key).is_dir():
                with self.claim(cell) as mine:
                    done += self.tidy(cell.key) if mine else []
                    busy = busy or not mine
        if not busy:
            with disk(self.folder):
                for left in self.folder.glob(".*"):
                    if _LEFT.fullmatch(left.name) and left.is_file():
                        left.unlink(missing_ok=True)
                        done.append(f"removed {left.name}, which a killed run left half written")
        return done

    def fail(self, cell: Cell, error: str, detail: str) -> None:
        """Append a failed attempt; nothing already written is touched."""
        path = self.folder_of(cell.key) / "attempts" / f"{self._last_attempt(cell.key) + 1}.json"
        attempt: dict[str, Json] = {
            "cell": cell.identity, "error": error, "detail": detail, "at": time.time(),
        }  # fmt: skip
        write_atomically(path, json.dumps(hidden(attempt), indent=1))

    def _last_attempt(self, key: str) -> int:
        try:
            names = os.listdir(self.folder_of(key) / "attempts")
        except OSError:
            return 0
        return max((int(name[:-5]) for name in names if re.fullmatch(r"[0-9]{1,9}\.json", name)), default=0)

    def failure(self, cell: Cell) -> Failure:
        """Why `cell` has no record, as far as its attempts say."""
        number = self._last_attempt(cell.key)
        if not number:
            return Failure(cell, "not run yet", 0)
        try:
            path = self.folder_of(cell.key) / "attempts" / f"{number}.json"
            error = str(json.loads(path.read_bytes())["error"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            error = f"the last attempt's file {number}.json cannot be read"
        return Failure(cell, error, number)

    @contextmanager
    def claim(self, cell: Cell, wait: float = 0) -> Iterator[bool]:
        """Whether this process may work on `cell` now; False while another runner does.

        The claim is a lock of the operating system's: it ends with the process, however that ends.
        """
        folder = self.folder_of(cell.key)
        lock = FileLock(folder / _LOCK, mode=0o644)
        with disk(folder):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=wait)
                mine = True
            except Timeout:
                mine = False
        try:
            yield mine
        finally:
            if mine:
                lock.release()

    def claimed(self, key: str) -> bool:
        """Whether some runner works on the cell now; asking takes no lock away and needs no right to write."""
        if os.name == "nt":
            return False  # a lock cannot be looked at there without taking it
        import fcntl

        try:
            handle = os.open(self.folder_of(key) / _LOCK, os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False
