"""The command line: one command a verb. It parses, calls and prints; the work is done elsewhere."""

from __future__ import annotations

import json as json_text
import os
import re
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from cyclopts import App, CycloptsError, Group, Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deadweight import __version__
from deadweight.errors import DeadweightError, InputError

if TYPE_CHECKING:
    from deadweight.lab import Findings, Records
    from deadweight.studies import Study

app = App(
    name="deadweight",
    version=__version__,
    help="Finds what a transformer carries but does not use: parameters, layers, demonstrations, joules.",
    default_parameter=Parameter(negative=""),
    help_epilogue="Exit codes: 0 done, 1 failed cells, 2 bad usage or input, 3 disk or permission, 130/143 signals.",
)
_OFTEN = Group("Common options", sort_key=9)
_BUDGET = re.compile(r"^(\d+(?:\.\d+)?)\s*(s|sec|min|m|h)?$")


@Parameter(name="*", group=_OFTEN)
@dataclass(frozen=True)
class Common:
    """What every command that computes takes, and means the same everywhere.

    Args:
        out: folder of the run; the same command on the same folder goes on where it stopped.
        device: torch device, e.g. cpu, cuda:0, mps; default: the accelerator if there is one.
        dtype: float32 or bfloat16, of the models that are examined.
        seed: everything random follows from it.
        limit: use at most so many items of each data set.
        margin: the loss one is willing to accept: 0.01 is one point of accuracy, or one per cent of a loss.
        budget: start no further cell after this long, e.g. 20min, 90s, 2h.
        dry_run: print the cells with their estimated time, and do nothing.
        json: print machine-readable JSON on standard output.
    """

    out: Path | None = None
    device: str | None = None
    dtype: str | None = None
    seed: int | None = None
    limit: int | None = None
    margin: float | None = None
    budget: str | None = None
    dry_run: bool = False
    json: bool = False

    def options(self) -> dict[str, Any]:
        """Those that are a study's options, where given."""
        given = {name: getattr(self, name) for name in ("device", "dtype", "seed", "limit", "margin")}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def seconds(self) -> float | None:
        if self.budget is None:
            return None
        found = _BUDGET.match(self.budget.strip())
        if not found:
            raise InputError(f"--budget {self.budget!r}", expected="a time such as 20min, 90s or 2h")
        return float(found[1]) * {"h": 3600, "m": 60, "min": 60}.get(found[2] or "s", 1)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None and value != []}


@app.command
def audit(
    *,
    vision: str | None = None,
    images: str | None = None,
    language: str | None = None,
    tasks: list[str] | None = None,
    studies: list[str] | None = None,
    common: Common | None = None,
) -> int:
    """Run the four studies and say what is dead weight.

    Without sources it trains small models on embedded data and examines SmolLM2-135M; a model of your own is
    examined, never retrained. It goes on where it stopped when it is called again on the same folder.

    Example: deadweight audit --vision file:my_vit --images folder:my_pictures --out audit/

    Args:
        vision: your vision model: file:FOLDER, timm:NAME, torchvision:NAME, hf:FOLDER …
        images: labelled images: embedded:digits, folder:PATH with class folders, hf:DATASET.
        language: your causal language model: hf:FOLDER, hf:REPO, gguf:PATH.
        tasks: classification tasks: embedded:sentiment, csv:PATH?text=COLUMN&label=COLUMN …; may be repeated.
        studies: which of mlp, depth, icl, attention to run; may be repeated; default: all four.
    """
    from deadweight.studies import build_study

    common = common or Common()
    given = _given(vision=vision, images=images, language=language, tasks=tasks, studies=studies)
    return _run(build_study("audit", {**given, **common.options()}), common, Path("audit"))


@app.command
def mlp(
    *,
    study: Path | None = None,
    vision: str | None = None,
    images: str | None = None,
    seeds: list[int] | None = None,
    epochs: int | None = None,
    common: Common | None = None,
) -> int:
    """How much of the MLPs can be shared or narrowed without losing accuracy?

    Example: deadweight mlp --images folder:my_pictures --seeds 0 --seeds 1 --seeds 2

    Args:
        study: a YAML file or packaged study with all options; flags override it.
        vision: a model of your own, examined without training; without it, small ViTs are trained in three variants.
        images: labelled images to train and measure on.
        seeds: one training run a variant and seed.
        epochs: of each training run.
    """
    given = _given(vision=vision, images=images, seeds=seeds, epochs=epochs)
    return _study("mlp", study, given, common)


@app.command
def depth(
    *,
    study: Path | None = None,
    vision: str | None = None,
    images: str | None = None,
    common: Common | None = None,
) -> int:
    """Which layers still do something for the task?

    Example: deadweight depth --vision timm:vit_base_patch16_224 --images folder:imagenet/val --limit 2000

    Args:
        study: a YAML file or packaged study with all options; flags override it.
        vision: the model whose layers are looked at.
        images: labelled images.
    """
    return _study("depth", study, _given(vision=vision, images=images), common)


@app.command
def icl(
    *,
    study: Path | None = None,
    language: str | None = None,
    tasks: list[str] | None = None,
    k: list[int] | None = None,
    seeds: list[int] | None = None,
    common: Common | None = None,
) -> int:
    """Do demonstrations override label meanings, or only refine a prior?

    Example: deadweight icl --language hf:my_model --tasks embedded:sentiment --k 4 --k 16

    Args:
        study: a YAML file or packaged study with all options; flags override it.
        language: the causal language model.
        tasks: embedded:NAME, csv:PATH?text=COLUMN&label=COLUMN, jsonl:…, parquet:…; may be repeated.
        k: numbers of demonstrations; may be repeated.
        seeds: one set of demonstrations a seed.
    """
    return _study("icl", study, _given(language=language, tasks=tasks, k=k, seeds=seeds), common)


@app.command
def attention(
    *,
    study: Path | None = None,
    mechanisms: list[str] | None = None,
    text: str | None = None,
    steps: int | None = None,
    seeds: list[int] | None = None,
    common: Common | None = None,
) -> int:
    """Which attention mechanism costs what: time, memory, energy, quality?

    Example: deadweight attention --mechanisms sdpa --mechanisms linear --steps 300

    Args:
        study: a YAML file or packaged study with all options; flags override it.
        mechanisms: names from `deadweight list mechanisms`; may be repeated.
        text: what the small GPT-2 learns: embedded:stdlib or text:PATH.
        steps: training steps of each mechanism.
        seeds: one training run a mechanism and seed.
    """
    return _study("attention", study, _given(mechanisms=mechanisms, text=text, steps=steps, seeds=seeds), common)


@app.command
def run(study: str, *, executor: str = "local", common: Common | None = None) -> int:
    """Run a study from a YAML file, or a packaged one by name; resumes by itself.

    Example: deadweight run mini-2512.01059 --out runs/mini --dry-run

    Args:
        study: path of a YAML file, or a name from `deadweight list studies`.
        executor: where the cells run: local.
    """
    from deadweight.studies import build_study, load_study

    common = common or Common()
    found = load_study(study)
    if common.options():
        found = build_study(found.kind, {**found.model_dump(exclude_unset=True), **common.options()})
    return _run(found, common, Path("runs") / Path(study).stem if Path(study).is_file() else Path("runs") / study)


@app.command
def report(folder: Path, *, json: bool = False) -> int:
    """Rebuild findings and page of a run folder from its records alone.

    Example: deadweight report audit/

    Args:
        folder: a folder written by `audit` or `run`.
        json: print the findings as JSON.
    """
    from deadweight.studies import retell

    return _tell(retell(folder), json)


@app.command(name="list")
def list_(what: str = "studies", *, json: bool = False) -> int:
    """List what there is to choose from.

    Example: deadweight list mechanisms

    Args:
        what: models, data, tasks, mechanisms, probes or studies.
        json: print as JSON.
    """
    from deadweight.studies.catalogue import catalogue

    rows = catalogue(what)
    if json:
        print(json_text.dumps([{"name": name, "about": about} for name, about in rows], ensure_ascii=False))
        return 0
    width = max((len(name) for name, _ in rows), default=0)
    for name, about in rows:
        print(f"{name:<{width}}  {about}".rstrip())
    return 0


@app.command
def doctor(*, json: bool = False) -> int:
    """Say what this machine can measure, and what to do about what it can't.

    Example: deadweight doctor

    Args:
        json: print as JSON.
    """
    from deadweight.studies.doctor import examine

    checks = examine()
    if json:
        print(json_text.dumps([check.as_json() for check in checks], ensure_ascii=False))
        return 0
    console = Console()
    for check in checks:
        mark, colour = ("yes", "green") if check.good else ("no ", "yellow")
        console.print(f"[{colour}]{mark}[/]  [bold]{check.what}[/]: ", end="", highlight=False)
        console.print(check.found, markup=False, highlight=False)
        if check.cure:
            console.print(f"       {check.cure}", markup=False, style="dim", highlight=False)
    return 0


def _study(kind: str, file: Path | None, given: dict[str, Any], common: Common | None) -> int:
    from deadweight.studies import build_study, load_study

    common = common or Common()
    base: dict[str, Any] = {}
    if file is not None:
        found = load_study(file)
        if found.kind != kind:
            raise InputError(f"{file} is a study of kind {found.kind}", expected=kind, cure=f"deadweight run {file}")
        base = found.model_dump(exclude_unset=True)
    return _run(build_study(kind, {**base, **given, **common.options()}), common, Path("runs") / kind)


def _run(study: Study, common: Common, default: Path) -> int:
    from deadweight.lab.progress import Watch
    from deadweight.studies import Plan, plan
    from deadweight.studies.running import run as run_study
    from deadweight.studies.running import with_page

    out = common.out or default
    if common.dry_run:
        return _dry_run(plan(study), common.json)
    with Watch() as watch:
        records: Records = run_study(study, out, observer=watch, budget=common.seconds)
    return _tell(with_page(records, Plan.read(out / "plan.json"), out / "report.html"), common.json)


def _dry_run(planned: Any, as_json: bool) -> int:
    seconds = sum(cell.seconds for cell in planned.cells)
    if as_json:
        rows = [{"key": cell.key, "cell": cell.identity, "seconds": cell.seconds} for cell in planned.cells]
        print(json_text.dumps({"cells": rows, "seconds": seconds, "skipped": planned.skipped}, ensure_ascii=False))
        return 0
    for cell in planned.cells:
        print(f"{cell.key}  {cell.label:<60} ~{cell.seconds:.0f} s")
    print(f"{len(planned.cells)} cells, about {seconds / 60:.1f} minutes; each record is a few kB to a few MB")
    for name, reason in planned.skipped:
        print(f"skipped: {name}: {reason}")
    return 0


def _tell(findings: Findings, as_json: bool) -> int:
    if as_json:
        print(json_text.dumps(findings.as_json(), ensure_ascii=False))
    else:
        _print_findings(findings)
    return 1 if findings.failed else 0


def _print_findings(findings: Findings) -> None:
    console = Console()
    colours = {"dead weight": "green", "needed": "red", "undecided": "yellow", None: "cyan"}
    for study in dict.fromkeys(finding.study for finding in findings):
        console.print(f"\n[bold]{study}[/]")
        rows = Table.grid(padding=(0, 2))
        for finding in (finding for finding in findings if finding.study == study):
            verdict = finding.verdict or "measured"
            rows.add_row(f"  [{colours[finding.verdict]}]{verdict}[/]", Text(finding.claim))
            if not console.is_terminal:  # a log keeps a finding on one line
                print(f"  {verdict:<11}  {finding.claim}")
        if console.is_terminal:
            console.print(rows)
    for name, reason in findings.skipped:
        console.print(f"\n[bold]{name}[/] skipped: ", end="")
        console.print(reason, markup=False, highlight=False, soft_wrap=True)
    if findings.failed:
        console.print(f"\n[red]{findings.failed} cells lack their record[/]; the same command tries them again")
    if findings.page is not None:
        console.print(f"\nThe page: {findings.page}", highlight=False, soft_wrap=True)


def _complain(problem: DeadweightError) -> int:
    console = Console(stderr=True)
    console.print("error: ", style="bold red", end="")
    console.print(str(problem), markup=False, highlight=False, soft_wrap=True)
    return problem.exit_code


def _terminated(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main(arguments: list[str] | None = None) -> None:
    """Entry point; ends the process with the exit code of what happened."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # read when a library imports tqdm: our progress is the one to watch
    # Read when torch loads OpenMP. Threads that spin at barriers made matrix products up to 5 times slower here
    # whenever something else ran; threads that sleep cost a few per cent on an idle machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGTERM, _terminated)
    try:
        code = app(arguments, exit_on_error=False, result_action="return_value")
    except CycloptsError:
        sys.exit(2)  # cyclopts has printed what is wrong
    except DeadweightError as problem:
        sys.exit(_complain(problem))
    except KeyboardInterrupt:
        Console(stderr=True).print("\ninterrupted: what is finished is kept; the same command goes on from there")
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)
