"""The application every command joins."""

from __future__ import annotations

from cyclopts import App, Parameter

from deadweight import __version__

app = App(
    name="deadweight",
    version=__version__,
    help="Finds what a transformer carries but does not use: parameters, layers, demonstrations, joules.",
    default_parameter=Parameter(negative=""),
    suppress_keyboard_interrupt=False,  # ours says what is kept
    help_epilogue="Exit codes: 0 done, 1 failed cells, 2 bad usage or input, 3 disk or permission, 130/143 signals.",
)
