"""The public door: every name is there, is what it says, and stays so whatever is imported in between."""

import subprocess
import sys

import pytest

import deadweight as dw

pytestmark = pytest.mark.slow

EVERYTHING = """
import importlib, pkgutil, types
import deadweight as dw

for found in pkgutil.walk_packages(dw.__path__, "deadweight."):
    if found.name != "deadweight.__main__":
        importlib.import_module(found.name)
for name in dw.__all__:
    thing = getattr(dw, name)
    assert callable(thing) or not isinstance(thing, types.ModuleType), f"{name} is the module {thing.__name__}"
print(len(dw.__all__))
"""


def test_no_import_of_a_module_takes_the_place_of_a_name_of_the_door():
    done = subprocess.run([sys.executable, "-c", EVERYTHING], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(dw.__all__)


def test_an_unknown_name_is_told_what_there_is():
    with pytest.raises(AttributeError, match="group_mlps"):
        dw.grup_mlps
