"""The names other people's scripts rely on: they exist, take what they promise, and keep their defaults."""

import inspect

import pytest

import deadweight as dw

NEEDED = inspect.Parameter.empty
SIGNATURES = {
    "load": {"source": NEEDED, "pretrained": None, "dtype": None, "device": None},
    "load_lm": {"source": NEEDED, "dtype": "float32", "device": None, "trust_remote_code": False},
    "transform": {"model": NEEDED},
    "anatomy": {"model": NEEDED, "paths": None},
    "group_mlps": {
        "model": NEEDED, "size": 2, "pattern": "adjacent", "merge": "first", "scale": 1.0, "refit": None,
        "batches": None, "inplace": False,
    },
    "shallow_mlps": {
        "model": NEEDED, "keep": 0.5, "by": "first", "refit": None, "batches": None, "inplace": False,
    },
    "compress": {
        "model": NEEDED, "batches": NEEDED, "parameters": None, "macs": None, "widths": True, "sharing": True,
        "depth": True, "distill": 0,
    },
    "drop_blocks": {"model": NEEDED, "indices": NEEDED, "refit": None, "batches": None, "inplace": False},
    "swap_attention": {"model": NEEDED, "name": NEEDED, "inplace": False},
    "scale_positions": {"model": NEEDED, "factor": NEEDED, "inplace": False},
    "save": {"folder": NEEDED, "expand": False},
    "count": {"model": NEEDED, "inputs": NEEDED},
    "profile": {"model": NEEDED, "batches": NEEDED, "probes": "all", "device": None},
    "score_labels": {"lm": NEEDED, "prompts": NEEDED, "labels": NEEDED, "reduction": "sum", "memory": None},
    "load_task": {"source": NEEDED},
    "run_icl": {"lm": NEEDED, "task": NEEDED},
    "mechanism": {"name": NEEDED, "dim": NEEDED, "heads": NEEDED, "rope": None},
    "measure": {"energy": False},
    "run": {"study": NEEDED, "out": None, "executor": "local"},
    "audit": {"out": "audit/"},
}  # fmt: skip
MECHANISMS = {
    "sliding_window": {"window": 256},
    "mqa": {},
    "lsh": {"buckets": 64, "rounds": 4, "window": 64},
    "mla": {"rope_dim": 32},
    "linear": {"chunk": 64},
    "eager": {},
    "sdpa": {},
    "flash": {},
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_names_of_the_door_take_what_they_promise(name):
    given = inspect.signature(getattr(dw, name)).parameters
    for parameter, default in SIGNATURES[name].items():
        assert parameter in given
        assert given[parameter].default == default


@pytest.mark.parametrize("name", MECHANISMS)
def test_the_options_of_the_mechanisms(name):
    given = inspect.signature(dw.MECHANISMS.get(name)).parameters
    assert {option: given[option].default for option in MECHANISMS[name]} == MECHANISMS[name]
