"""Whole numbers on the command line: 2.5 is an error there, not 2."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import Parameter, Token


def _whole(kind: Any, tokens: Sequence[Token]) -> int:
    """What cyclopts would round: refused. It asks for one number at a time."""
    (token,) = tokens
    if not re.fullmatch(r"[+-]?\d[\d_]*", token.value.strip()):
        raise ValueError(f"{token.value!r} is no whole number")
    return int(token.value)


Whole = Annotated[int, Parameter(converter=_whole)]
