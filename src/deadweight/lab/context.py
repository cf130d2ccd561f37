"""Where a record was made: versions, machine, commit."""

from __future__ import annotations

import functools
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from deadweight.lab.cell import Json

_PACKAGES = ("deadweight", "torch", "timm", "transformers", "accelerate", "numpy")


@functools.lru_cache(maxsize=1)
def context() -> dict[str, Json]:
    """Versions of what computes, the processor, the threads, and the commit of this checkout if it is one."""
    from deadweight.meters import machine

    return {
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "machine": {**machine()},
        "threads": torch.get_num_threads(),
        "commit": _commit(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    git = shutil.which("git")
    root = Path(__file__).resolve().parents[3]
    if git is None or not (root / ".git").exists():
        return None
    answer = subprocess.run([git, "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None
