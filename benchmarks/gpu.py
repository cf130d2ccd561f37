"""What a GPU says, in one call of at most eight minutes: correctness, joules, speed, and what our parts cost there.

    python benchmarks/gpu.py --out gpu.json                 # everything
    python benchmarks/gpu.py --out gpu.json --skip speed    # all sections but some; --only for some
    python benchmarks/gpu.py --out gpu.json --rehearse      # on the CPU at tiny sizes: only the device would be new
    python benchmarks/gpu.py --page gpu.json                # docs/results/gpu.md of a JSON, printed

Each section runs in a process of its own, with a time limit; the JSON is written anew, whole, after every row, so that
a run that is cut short brings what it had. What is missing or fails (no GPU, no NVML, a package, memory) is a named row
and the rest goes on. The exit code is 0 where every section asked for ran to its end, else 1.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from pathlib import Path

from gpu_sections import SECTIONS, Plan, Section
from gpu_sections.page import page
from gpu_sections.runner import DONE, run

SECONDS = 460.0  # of all sections; with the start and the end it stays below eight minutes
PATIENCE = 10.0  # times a section's limit, in a rehearsal: a CPU may be busy, and nothing is measured


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--skip", nargs="+", choices=list(SECTIONS), default=[])
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--page", help="print the page of this JSON (none: of no run), and do nothing else")
    chosen = parser.parse_args(arguments)
    if chosen.page is not None:
        told = None if chosen.page == "none" else json.loads(Path(chosen.page).read_text(encoding="utf-8"))
        sys.stdout.write(page(told))
        return 0
    # The order in which the driver counts boards, so that the counter read is that of the board at work.
    for name, value in (("CUDA_DEVICE_ORDER", "PCI_BUS_ID"), ("HF_HUB_OFFLINE", "1"), ("TQDM_DISABLE", "1")):
        os.environ.setdefault(name, value)
    plan = Plan("cpu", rehearsal=True) if chosen.rehearse else Plan()
    asked = [name for name in chosen.only if name not in chosen.skip]
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    slower = PATIENCE if chosen.rehearse else 1.0
    sections = {name: Section(one.work, slower * one.seconds) for name, one in SECTIONS.items()}
    document = run(sections, plan, chosen.out, seconds=slower * chosen.seconds, asked=asked)
    for name in asked:
        section = document["sections"][name]
        counts = Counter(row["status"] for row in section["rows"])
        told = ", ".join(f"{count} {status}" for status, count in counts.items()) or "no rows"
        print(f"{name}: {section['status']}, {section['seconds']:.0f} s, {told}  {section['reason']}", flush=True)
    return 0 if all(document["sections"][name]["status"] == DONE for name in asked) else 1


if __name__ == "__main__":
    sys.exit(main())
