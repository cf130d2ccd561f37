"""What is free is what the smallest limit leaves: of the machine, or of any control group around the process."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from deadweight.models import free_memory as module

MACHINE, GIB = 8 * 2**30, 2**30


@pytest.fixture
def groups(tmp_path, monkeypatch):
    monkeypatch.setattr(module.psutil, "virtual_memory", lambda: SimpleNamespace(available=MACHINE))
    monkeypatch.setattr(module, "GROUPS", tmp_path)
    monkeypatch.setattr(module, "_MEMBERSHIP", tmp_path / "membership")

    def write(folder, **numbers):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name, number in numbers.items():
            (tmp_path / folder / f"memory.{name}").write_text(f"{number}\n")

    write.membership = lambda text: (tmp_path / "membership").write_text(text)
    return write


def test_a_machine_without_groups_has_what_it_has(groups):
    assert module.free_memory() == MACHINE


def test_a_containers_limit_counts(groups):
    groups(".", max=GIB, current=GIB // 4)
    assert module.free_memory() == GIB * 3 // 4


def test_files_that_would_be_dropped_are_free(groups):
    groups(".", max=GIB, current=GIB // 2, stat=f"anon 5\ninactive_file {GIB // 4}")
    assert module.free_memory() == GIB * 3 // 4


def test_a_group_without_a_limit_and_one_that_is_full(groups):
    groups(".", max="max", current=5)
    assert module.free_memory() == MACHINE
    groups(".", max=GIB, current=GIB + 4096)
    assert module.free_memory() == 0


@pytest.mark.parametrize("limited", ["jobs", "jobs/42", "jobs/42/step"])
def test_a_limit_anywhere_above_the_process_counts(groups, limited):
    groups.membership("0::/jobs/42/step\n")
    groups(limited, max=GIB, current=0)
    assert module.free_memory() == GIB


def test_groups_of_the_first_version_count(groups):
    groups.membership("4:cpu,cpuacct:/elsewhere\n9:memory:/job\n")
    groups("memory/job", limit_in_bytes=GIB, usage_in_bytes=GIB // 4)
    assert module.free_memory() == GIB * 3 // 4
    groups("memory/job", limit_in_bytes=2**63 - 4096)  # how that version says that there is none
    assert module.free_memory() == MACHINE
