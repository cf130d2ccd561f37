"""A profile as one safetensors file: arrays, and JSON in the header. Nothing in it is ever executed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from deadweight.errors import InputError, MachineError

FORMAT = "deadweight depth profile 2"
Arrays = Mapping[str, npt.NDArray[np.generic]]


def write_profile(path: str | os.PathLike[str], about: Mapping[str, Any], states: Mapping[str, Arrays]) -> None:
    """Write atomically: a reader sees the old file or the new one."""
    target = Path(path)
    arrays = {
        f"{state}/{name}": np.ascontiguousarray(value) for state, held in states.items() for name, value in held.items()
    }
    header = {"format": FORMAT, "profile": json.dumps(about, sort_keys=True)}
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        scratch.write_bytes(save(arrays, metadata=header))
        scratch.replace(target)
    except OSError as problem:
        scratch.unlink(missing_ok=True)
        raise MachineError(
            f"cannot write {target}: {problem.strerror or problem}", expected="a folder that can be written"
        ) from problem


def read_profile(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, dict[str, npt.NDArray[np.generic]]]]:
    """(JSON part, state -> name -> array); raises :class:`InputError` for a file that is no profile."""
    names = ("images", "moments", "sample", "scrambling", "head", "positions")
    states: dict[str, dict[str, npt.NDArray[np.generic]]] = {name: {} for name in names}
    try:
        with safe_open(Path(path), framework="numpy") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise InputError(f"{path} is no depth profile", expected=f"a file saved as {FORMAT!r}")
            for key in file.keys():  # noqa: SIM118  # the file is no mapping
                state, _, name = key.partition("/")
                states[state][name] = file.get_tensor(key)
    except (OSError, SafetensorError) as problem:
        raise InputError(
            f"{path} cannot be read as a depth profile: {problem}", expected="a file DepthProfile.save wrote"
        ) from problem
    return json.loads(header["profile"]), states
