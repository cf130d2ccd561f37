"""Every example in a docstring is run as it stands, and every public name has one."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import deadweight as dw

pytestmark = pytest.mark.slow

FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
LEFT_OUT = ("deadweight.__main__",)  # runs the command line when it is imported


def _with_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    for info in pkgutil.walk_packages(dw.__path__, "deadweight."):
        if info.name in LEFT_OUT:
            continue
        module = importlib.import_module(info.name)
        for case in finder.find(module, info.name):
            if case.examples:
                yield pytest.param(case, id=case.name.removeprefix("deadweight."))


@pytest.mark.parametrize("case", _with_examples())
def test_an_example_is_true(case):
    said = []
    doctest.DocTestRunner(optionflags=FLAGS).run(case, out=said.append)
    assert not said, "".join(said)


PUBLIC = [name for name in dw.__all__ if inspect.isclass(getattr(dw, name)) or inspect.isfunction(getattr(dw, name))]


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_shows_how_it_is_used(name):
    assert ">>>" in (getattr(dw, name).__doc__ or ""), f"dw.{name} has no example"
