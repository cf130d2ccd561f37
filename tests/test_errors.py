import pickle

import pytest

from deadweight.errors import CellFailed, InputError, MachineError, SourceError, SurgeryError


def test_an_error_says_what_was_given_what_was_expected_and_what_to_do():
    text = str(InputError("group size 0", expected="at least 1", cure="choose 2"))
    assert text == "group size 0\n  expected: at least 1\n  what to do: choose 2"


@pytest.mark.parametrize(
    ("kind", "code"), [(InputError, 2), (SourceError, 2), (SurgeryError, 2), (MachineError, 3), (CellFailed, 1)]
)
def test_every_kind_has_its_exit_code(kind, code):
    assert kind("x").exit_code == code


def test_an_error_survives_the_way_between_processes():
    again = pickle.loads(pickle.dumps(SourceError("a", expected="b", cure="c")))
    assert (type(again), str(again), again.cure) == (SourceError, str(SourceError("a", expected="b", cure="c")), "c")
