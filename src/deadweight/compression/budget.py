"""A budget as people give it: a share of what there is, or a number."""

from __future__ import annotations

from deadweight.errors import InputError


def budget_of(parameters: float | None, macs: float | None) -> dict[str, float]:
    """The bounds that were given; raises :class:`InputError` for none, and for what cannot be one."""
    given = {name: float(value) for name, value in (("parameters", parameters), ("macs", macs)) if value is not None}
    if not given:
        raise InputError(
            "no budget", expected="parameters or macs: a share such as 0.67, or a number", cure="parameters=0.67"
        )
    for name, value in given.items():
        if not 0 < value < float("inf"):
            raise InputError(
                f"{name}={value:g}",
                expected="a share of the model's in (0, 1], or a number above 1",
                cure=f"{name}=0.67 keeps two thirds",
            )
    return given
