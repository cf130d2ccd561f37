"""The command line: one command a verb. It parses, calls and prints; the work is done elsewhere."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import sys
import traceback
from types import FrameType, TracebackType

from cyclopts import CycloptsError
from rich.console import Console

from deadweight.cli import compress, info, recommend, run, runs  # each adds its verbs to the application
from deadweight.cli.app import app
from deadweight.errors import DeadweightError

__all__ = ["app", "compress", "info", "main", "recommend", "run", "runs"]


def _complain(problem: DeadweightError) -> int:
    from deadweight.secrets import hide, printable

    console = Console(stderr=True)
    console.print("error: ", style="bold red", end="")
    said = "\n".join(printable(line) for line in hide(str(problem)).split("\n"))
    console.print(said, markup=False, highlight=False, soft_wrap=True)
    return problem.exit_code


def _told_without_secrets(kind: type[BaseException], problem: BaseException, trace: TracebackType | None) -> None:
    """A crash, as Python tells it, without what must not be told."""
    from deadweight.secrets import hide

    sys.stderr.write(hide("".join(traceback.format_exception(kind, problem, trace))))


def _terminated(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _deaf() -> None:
    """The end has begun: one more Ctrl-C must not turn it into a traceback, and no worker keep it waiting."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for child in multiprocessing.active_children():
        child.kill()


def main(arguments: list[str] | None = None) -> None:
    """Entry point; ends the process with the exit code of what happened."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # read when a library imports tqdm: our progress is the one to watch
    # Read when torch loads OpenMP. Threads that spin at barriers made matrix products up to 5 times slower here
    # whenever something else ran; threads that sleep cost a few per cent on an idle machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGTERM, _terminated)
    sys.excepthook = _told_without_secrets
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may hold bytes that are no text
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = app(arguments, exit_on_error=False, result_action="return_value")
    except SystemExit as ended:
        if ended.code == 128 + signal.SIGTERM:
            _deaf()
        raise
    except CycloptsError:
        sys.exit(2)  # cyclopts has printed what is wrong
    except DeadweightError as problem:
        sys.exit(_complain(problem))
    except BrokenPipeError:  # whoever read our output has had enough: `deadweight list probes | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
        _deaf()
        Console(stderr=True).print("\ninterrupted: what is finished is kept; the same command goes on from there")
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)
