"""Makes `toy_study` of the lab's tests a module that other processes can import."""

import os
import sys
from pathlib import Path

_HERE = str(Path(__file__).parents[1] / "lab")
if _HERE not in sys.path:
    sys.path.append(_HERE)
if _HERE not in os.environ.get("PYTHONPATH", "").split(os.pathsep):
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), _HERE]))
