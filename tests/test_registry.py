import pytest

from deadweight.errors import InputError
from deadweight.registry import Registry, did_you_mean


def test_an_entry_given_as_text_is_imported_when_asked_for():
    registry = Registry("codec")
    registry.add("dumps", "json:dumps")
    assert registry.get("dumps")([1]) == "[1]"


def test_an_unknown_name_is_answered_with_the_likeliest():
    registry = Registry("mechanism")
    registry.add("sliding_window", len)
    with pytest.raises(InputError, match="did you mean 'sliding_window'"):
        registry.get("sliding_windw")


def test_a_name_is_not_given_away_twice():
    registry = Registry("probe")
    registry.add("isi", len)
    registry.add("isi", len)
    with pytest.raises(InputError, match="registered already"):
        registry.add("isi", max)


def test_an_entry_of_the_wrong_kind_is_refused_when_resolved():
    registry = Registry("study", check=lambda it: isinstance(it, type))
    registry.add("pi", "math:pi")
    with pytest.raises(InputError, match="study 'pi' is a float"):
        registry.get("pi")


def test_nothing_close_still_lists_what_is_known():
    assert did_you_mean("zzz", ["linear", "lsh"]) == "known: linear, lsh"
