"""One lazy registry for everything a user may plug in: mechanisms, probes, tasks, sources, studies.

An entry is either the object itself or the text ``"module:attribute"``, imported when it is asked for.
Other packages add theirs through an entry point of the group ``deadweight.<kind>``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from deadweight.errors import InputError

T = TypeVar("T")


def did_you_mean(name: str, known: list[str]) -> str:
    """A sentence that lists what is known, the likeliest first when `name` looks like a slip."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known: {', '.join(known) if known else 'none'}"


class Registry(Generic[T]):
    """Names to objects of one kind.

    Parameters
    ----------
    kind:
        What the entries are, in the singular, e.g. ``"mechanism"``; used in errors.
    check:
        Says whether a resolved entry is of the kind; a failing entry raises :class:`InputError`.
    """

    def __init__(self, kind: str, *, check: Callable[[Any], bool] = callable) -> None:
        self.kind = kind
        self._check = check
        self._entries: dict[str, T | str] = {}
        self._plugins_read = False

    def add(self, name: str, entry: T | str) -> None:
        """Register `entry` under `name`; a second, different entry of the same name is refused."""
        if self._entries.get(name, entry) != entry:
            raise InputError(
                f"{self.kind} {name!r} is registered already",
                expected="a name of its own",
                cure=f"choose another name; taken: {', '.join(self.names())}",
            )
        self._entries[name] = entry

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator form of :meth:`add`."""

        def keep(entry: T) -> T:
            self.add(name, entry)
            return entry

        return keep

    def names(self) -> list[str]:
        self._read_plugins()
        return sorted(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def get(self, name: str) -> T:
        """The entry called `name`, imported if need be; unknown names raise :class:`InputError`."""
        self._read_plugins()
        if name not in self._entries:
            raise InputError(
                f"unknown {self.kind} {name!r}",
                expected=f"a registered {self.kind}",
                cure=did_you_mean(name, self.names()),
            )
        entry = self._entries[name]
        resolved: Any = entry
        if isinstance(entry, str):
            module, _, attribute = entry.partition(":")
            resolved = getattr(import_module(module), attribute)
        if not self._check(resolved):
            raise InputError(
                f"{self.kind} {name!r} is a {type(resolved).__name__}",
                expected=f"something usable as a {self.kind}",
                cure="register the class or function itself",
            )
        self._entries[name] = resolved
        return resolved  # type: ignore[no-any-return]  # checked just above

    def _read_plugins(self) -> None:
        if self._plugins_read:
            return
        self._plugins_read = True
        for point in entry_points(group=f"deadweight.{self.kind.replace(' ', '_')}"):
            self._entries.setdefault(point.name, point.value)
