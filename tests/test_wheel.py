"""What people install is the wheel: it must carry everything that is not Python, and work outside the clone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    target = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target", str(target), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    return target


def _python(installed, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=installed.parent, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_the_installed_one_and_typed(installed):
    place = Path(_python(installed, "-c", "import deadweight; print(deadweight.__file__)").strip()).parent
    assert place == installed / "deadweight"
    assert (place / "py.typed").is_file()


@pytest.mark.parametrize("folder", ["report/templates", "lab/schemas", "data/tasks"])
def test_it_carries_what_is_not_python(installed, folder):
    carried = {path.name for path in (installed / "deadweight" / folder).iterdir() if path.suffix != ".py"}
    there = {path.name for path in (ROOT / "src" / "deadweight" / folder).iterdir() if path.suffix != ".py"}
    assert carried - {"__pycache__"} == there - {"__pycache__"} != set()


def test_its_command_lists_the_packaged_studies(installed):
    listed = _python(installed, "-m", "deadweight", "list", "studies")
    for name in ("mini-2512.01059", "mini-2511.21635", "mini-2511.21038", "mini-2507.07247"):
        assert name in listed
    assert "embedded:sentiment" in _python(installed, "-m", "deadweight", "list", "tasks")
