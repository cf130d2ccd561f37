"""What every test shares: two threads, no network, no progress bars of others."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line sets it

import pytest
import torch


def pytest_addoption(parser):
    parser.addoption("--soak", action="store_true", help="run the long fault loops")


def pytest_configure(config):
    config.addinivalue_line("markers", "soak: long fault loops, only with --soak")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--soak"):
        return
    long = [item for item in items if "soak" in item.keywords]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if "soak" not in item.keywords]


@pytest.fixture(autouse=True, scope="session")
def two_threads():
    torch.set_num_threads(2)
