"""The wheels that a bare GPU machine lacks (``gpu_machine.txt``), for ``pip install --no-deps`` there.

    python benchmarks/gpu_wheels.py --out wheels     # download them; writes gpu_wheels.txt with sizes
    python benchmarks/gpu_wheels.py --list           # names and versions alone, without a network

What deadweight needs, and what the comparisons of ``gpu.py`` need beside it, is followed through the requirements of
the packages installed here, in the versions of constraints.txt. A package that the machine has is taken as it is there:
where its version is known and somebody asks for another, that is said. No package is needed for the run to go on; what
is missing is a row of its JSON.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
MACHINE, FOUND = (Path(__file__).with_name(name) for name in ("gpu_machine.txt", "gpu_wheels.txt"))
MOST = 64 * 2**20  # bytes that can be brought along
ENVIRONMENT = {"python_version": "3.12", "python_full_version": "3.12.3", "sys_platform": "linux",
               "platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix",
               "implementation_name": "cpython", "platform_python_implementation": "CPython", "extra": ""}  # fmt: skip
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_24_x86_64", "manylinux_2_17_x86_64",
             "manylinux2014_x86_64", "manylinux_2_5_x86_64", "manylinux1_x86_64")  # fmt: skip
PEERS = {"flash-linear-attention": "0.6.0", "fla-core": "0.6.0"}  # not installed here; they ask for no more than einops
EXTRAS = ("lm-eval",)
LEFT_OUT = {  # reason
    "rouge-score": "no wheel; a metric of tasks that are not run",
    "word2number": "no wheel; a metric of tasks that are not run",
    "amdsmi": "another vendor's boards",
    "vl-convert-python": "pictures of a report; half of the bytes",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for the wheels")
    parser.add_argument("--list", action="store_true", help="names and versions alone")
    asked = parser.parse_args()
    there = machine()
    wheels = needed(there)
    for line in unfit(wheels, there):
        print(f"# {line}", file=sys.stderr)
    if asked.list:
        print("\n".join(f"{name}=={number}" for name, number in sorted(wheels.items())))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        sizes = {name: downloaded(name, number, folder) for name, number in sorted(wheels.items())}
    text = written(wheels, sizes)
    FOUND.write_text(text, encoding="utf-8")
    print(text, end="")
    if sum(sizes.values()) > MOST:
        sys.exit(f"more than {MOST / 2**20:.0f} MiB: leave something out")


def machine(text: str | None = None) -> dict[str, str | None]:
    """Names the machine has, each with its version or None."""
    lines = (text if text is not None else MACHINE.read_text(encoding="utf-8")).splitlines()
    found = [line.partition("==") for line in lines if line.strip() and not line.startswith("#")]
    return {canonicalize_name(name): number or None for name, _, number in found}


def asked_for() -> list[Requirement]:
    """deadweight's own requirements, the extras of the comparisons, and the peers."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in EXTRAS for line in project["optional-dependencies"][extra])]
    return [*map(Requirement, lines), *(Requirement(f"{name}=={number}") for name, number in PEERS.items())]


def needed(there: Mapping[str, str | None]) -> dict[str, str]:
    """name: version of every package that the machine lacks, requirements of requirements included."""
    found: dict[str, str] = {}
    waiting = asked_for()
    while waiting:
        one = waiting.pop()
        name = canonicalize_name(one.name)
        if name in there or name in found or name in LEFT_OUT or not _applies(one):
            continue
        found[name] = PEERS.get(name) or version(name)
        waiting += _requirements(name)
    return found


def unfit(wheels: Mapping[str, str], there: Mapping[str, str | None]) -> list[str]:
    """Who asks the machine for a version that it does not have, as far as versions are known."""
    asking = [("deadweight", one) for one in asked_for()]
    asking += [(name, one) for name in wheels for one in _requirements(name)]
    return [
        f"{who} asks for {one}, and the machine has {number}"
        for who, one in asking
        if _applies(one)
        and (number := there.get(canonicalize_name(one.name))) is not None
        and not one.specifier.contains(number, prereleases=True)
    ]


def _requirements(name: str) -> Iterable[Requirement]:
    try:
        return [Requirement(line) for line in requires(name) or []]
    except PackageNotFoundError:
        return []


def _applies(one: Requirement) -> bool:
    return one.marker is None or one.marker.evaluate(ENVIRONMENT)


def downloaded(name: str, number: str, folder: Path) -> int:
    """Bytes of the wheel for the machine; where only the source is published it is built here, and must be pure."""
    platforms = [part for one in PLATFORMS for part in ("--platform", one)]
    pip, which = [sys.executable, "-m", "pip"], ["--quiet", "--no-deps", f"{name}=={number}"]
    ready = [
        *pip, "download", "--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp", *platforms,
        "--dest", str(folder), *which,
    ]  # fmt: skip
    if subprocess.run(ready, capture_output=True).returncode:
        subprocess.run([*pip, "wheel", "--wheel-dir", str(folder), *which], check=True, capture_output=True)
    like = re.compile(rf"{re.escape(name)}-{re.escape(number)}-", re.IGNORECASE)
    (wheel,) = [one for one in folder.glob("*.whl") if like.match(one.name.replace("_", "-"))]
    if not wheel.name.endswith(("-none-any.whl", "x86_64.whl")) or "-cp311-cp311" in wheel.name:
        sys.exit(f"{wheel.name} is not for the machine")
    return wheel.stat().st_size


def written(wheels: Mapping[str, str], sizes: Mapping[str, int]) -> str:
    lines = [f"{name}=={number}  # {sizes[name] / 1e6:.2f} MB" for name, number in sorted(wheels.items())]
    head = [
        "# Made by benchmarks/gpu_wheels.py: what the machine of gpu_machine.txt lacks, for pip install --no-deps.",
        f"# {len(wheels)} wheels, {sum(sizes.values()) / 1e6:.1f} MB. Left out: "
        + "; ".join(f"{name} ({why})" for name, why in LEFT_OUT.items())
        + ".",
    ]
    return "\n".join([*head, *lines]) + "\n"


if __name__ == "__main__":
    main()
