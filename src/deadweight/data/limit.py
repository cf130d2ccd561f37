"""How many items are used at most."""

from __future__ import annotations

from deadweight.errors import InputError


def check_limit(limit: int | None, name: str = "limit") -> None:
    """Raise :class:`InputError` unless `limit` is None or a whole number of at least one.

    >>> check_limit(None)
    >>> check_limit(0)
    Traceback (most recent call last):
    deadweight.errors.InputError: limit = 0
      expected: a whole number of at least one
      what to do: leave it out to use all there are
    """
    if limit is None:
        return
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise InputError(
            f"{name} = {limit!r}", expected="a whole number of at least one", cure="leave it out to use all there are"
        )
