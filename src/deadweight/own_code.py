"""`python:MODULE:FUNCTION`: what a function of the user's own returns. Nothing else is imported."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deadweight.errors import DeadweightError, SourceError
from deadweight.registry import did_you_mean
from deadweight.signatures import function_parameters, typed_options
from deadweight.source import Source

_EXAMPLE = "python:my_module:build?depth=6, where my_module.py lies in the folder you work in"
_announced: set[str] = set()


def call(source: Source, own: Mapping[str, str] | None = None, **more: Any) -> Any:
    """What the function that `source` names returns, called with the options of `source` and `more`.

    ``python:my_module:build`` or ``python:path/to/my_module.py:build``. The module is looked for in the working folder
    and among what is installed. That it is run, and from where, is said once on standard error.

    Parameters
    ----------
    own:
        Options that are not the function's.

    Raises
    ------
    SourceError
        No such module or function, an option the function does not take, or an error inside of it, which is named with
        its file and line.
    """
    own = own or {}
    with _here():
        function = _function(source)
        parameters, open_ended = function_parameters(function)
        if open_ended:
            parameters = {name: () for name in source.options if name not in own} | parameters
        options = typed_options(source, own, parameters) | more
        _announce(source, function)
        try:
            return function(**options)
        except DeadweightError:
            raise
        except Exception as problem:
            raise _failed(source, problem) from problem


def file_of(source: Source) -> Path | None:
    """The file of the module that `source` names, found without running it; None where there is none."""
    module, _ = _names(source)
    if module.endswith(".py"):
        return Path(module).expanduser()
    with _here():
        try:
            found = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            return None
    return Path(found.origin) if found is not None and found.origin else None


def _names(source: Source) -> tuple[str, str]:
    module, _, function = source.name.rpartition(":")
    if not module or not function.isidentifier():
        raise SourceError(
            f"{source.text!r} does not name a module and a function", expected="python:MODULE:FUNCTION", cure=_EXAMPLE
        )
    return module, function


def _function(source: Source) -> Any:
    name, wanted = _names(source)
    try:
        module = _module(name, source)
    except DeadweightError:
        raise
    except Exception as problem:  # whatever the user's own code raises
        missing = isinstance(problem, ModuleNotFoundError) and problem.name in (name, name.partition(".")[0])
        if missing:
            raise SourceError(
                f"{source.text!r}: there is no module {name!r} in {os.getcwd()} or among what is installed",
                expected=_EXAMPLE,
                cure="go to the folder where the module lies, or give its path: python:PATH/my_module.py:build",
            ) from problem
        raise _failed(source, problem) from problem
    found = getattr(module, wanted, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise SourceError(
            f"{source.text!r}: {name} has no function {wanted!r}",
            expected="a function or class of that module",
            cure=did_you_mean(wanted, known)[:300],
        )
    return found


def _module(name: str, source: Source) -> Any:
    if not name.endswith(".py"):
        return importlib.import_module(name)
    path = Path(name).expanduser()
    if not path.is_file():
        raise SourceError(f"{source.text!r}: there is no file {path}", expected=_EXAMPLE, cure="check the path")
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) == str(path.resolve()):
        return known
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    assert spec is not None  # of a file that ends in .py there is one
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules.setdefault(path.stem, module)  # so that what it defines can be found again by name
    return module


@contextmanager
def _here() -> Iterator[None]:
    """The working folder is where modules are looked for first, as for ``python -m``."""
    sys.path.insert(0, os.getcwd())
    try:
        yield
    finally:
        sys.path.pop(0)


def _announce(source: Source, function: Any) -> None:
    where = str(getattr(sys.modules.get(function.__module__), "__file__", None) or function.__module__)
    line = f"running {function.__qualname__} of {where}, as {source.scheme}: asks for"
    if line not in _announced:
        _announced.add(line)
        sys.stderr.write(line + "\n")


def _failed(source: Source, problem: Exception) -> SourceError:
    last = traceback.extract_tb(problem.__traceback__)[-1]
    return SourceError(
        f"{source.text!r}: {type(problem).__name__}: {problem} ({last.filename}, line {last.lineno})",
        expected="code that runs",
        cure="try it alone: python -c 'import MODULE; MODULE.FUNCTION()'",
    )


__all__ = ["call", "file_of"]
