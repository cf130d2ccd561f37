"""How numbers, units and verdicts are written on the page."""

from __future__ import annotations

import math
import re
from numbers import Integral, Real
from typing import Any

import numpy as np
from markupsafe import Markup

VERDICTS: dict[str | None, str] = {
    "dead weight": "Dead weight",
    "needed": "Needed",
    "undecided": "Undecided",
    None: "Measured",
}
# Units in which a bare fraction reads badly: shown in hundredths, under the word on the right.
_HUNDREDTHS = {"accuracy": "points", "fraction": "%", "share": "%", "proportion": "%"}


def verdict_name(verdict: str | None) -> str:
    """The verdict as the reader sees it; findings without one are rankings and measurements."""
    return VERDICTS.get(verdict, str(verdict))


def code_spans(text: str) -> Markup:
    """`text`, escaped, with what stands between backticks set as code.

    >>> print(code_spans("try `a < b` & see"))
    try <code>a &lt; b</code> &amp; see
    """
    parts = re.split(r"`([^`]+)`", text)
    return Markup("").join(Markup("<code>{}</code>").format(one) if at % 2 else one for at, one in enumerate(parts))


def quantity(value: Any, unit: str = "", *, signed: bool = False) -> str:
    """`value` with three significant digits and its unit; ``not measured`` for None and NaN.

    >>> quantity(0.0034, "accuracy"), quantity(1234567, "bytes"), quantity(None, "J")
    ('0.34 points', '1,234,567 bytes', 'not measured')
    >>> quantity(-6e-7, "accuracy")  # nobody reads less than a hundredth of a point
    '0 points'
    """
    if value is None or (isinstance(value, Real) and math.isnan(float(value))):
        return "not measured"
    shown, word = _read(value, unit)
    sign = "+" if signed and shown > 0 else ""
    if word == "points" and abs(shown) == 1:
        word = "point"
    return f"{sign}{_plain(shown)} {word}".rstrip()


def interval(low: Any, high: Any, unit: str = "", *, joint: str = " to ") -> str:
    """``low to high unit``."""
    return f"{_plain(_read(low, unit)[0])}{joint}{quantity(high, unit)}"


def in_unit(value: Any, unit: str) -> tuple[Any, str]:
    """The value in the unit it is read in, and that unit's word: shares of one are read in hundredths."""
    if unit in _HUNDREDTHS and isinstance(value, Real):
        return 100 * float(value), _HUNDREDTHS[unit]
    return value, unit


def _read(value: Any, unit: str) -> tuple[Any, str]:
    """As `in_unit`, to the second decimal where the unit is a hundredth."""
    shown, word = in_unit(value, unit)
    return (round(shown, 2) + 0.0 if unit in _HUNDREDTHS and isinstance(shown, float) else shown), word


def _plain(value: Any) -> str:
    """In a sentence nothing lines up, so zeros at the end only pretend to precision."""
    text = number(value)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def number(value: Any) -> str:
    """Integers with separators, floats with three significant digits, everything else as it is.

    >>> number(86567656), number(0.00012345), number(12.3456), number(True), number(float("nan"))
    ('86,567,656', '0.000123', '12.3', 'yes', '–')
    """
    if value is None:
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return f"{int(value):,}"
    if isinstance(value, Real):
        return _float(float(value))
    return str(value)


def _float(value: float) -> str:
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(float(f"{value:.3g}"))  # rounding may carry into another digit: 9.999 is 10.0
    if size >= 1000:
        text = f"{value:,.0f}"
    elif size == 0 or size >= 1e-5:
        text = f"{value:.{_decimals(size)}f}"
    else:
        text = f"{value:.2e}"
    return text.replace("-", "−")


def _decimals(size: float) -> int:
    return 0 if size == 0 else max(0, 2 - math.floor(math.log10(size)))
