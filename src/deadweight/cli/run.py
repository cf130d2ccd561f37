"""The verbs that compute: the audit and the studies, each with its own options, and `run` for a study in a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from deadweight.cli.app import app
from deadweight.cli.dry_run import dry_run
from deadweight.cli.executor_options import Where
from deadweight.cli.options import Common
from deadweight.cli.output import progress, tell, tell_failures
from deadweight.cli.study_commands import VERBS
from deadweight.errors import InputError

if TYPE_CHECKING:
    from deadweight.lab import Records
    from deadweight.studies import Study

for _verb, _help in VERBS.items():
    app.command(f"deadweight.cli.study_commands:{_verb}", name=_verb, help=_help)


@app.command
def run(study: str, *, where: Where | None = None, common: Common | None = None) -> int:
    """Run a study from a YAML file, or a packaged one by name; resumes by itself.

    Example: deadweight run mini-2512.01059 --out runs/mini --dry-run

    Args:
        study: path of a YAML file, or a name from `deadweight list studies`.
    """
    from deadweight.studies import build_study, load_study
    from deadweight.studies.frame.run import run_name

    common = common or Common()
    found = load_study(study)
    if common.options() or common.paths is not None:
        options = {**found.model_dump(exclude_unset=True), **common.options()}
        found = build_study(found.kind, common.located(options))
    return _run(found, common, Path("runs") / run_name(study), where)


def run_study(kind: str, file: Path | None, flags: dict[str, Any], common: Common, default: Path) -> int:
    """Run a study from flags, over the options of a file where one is named."""
    from deadweight.studies import build_study, load_study

    base: dict[str, Any] = {}
    if file is not None:
        found = load_study(file)
        if found.kind != kind:
            raise InputError(f"{file} is a study of kind {found.kind}", expected=kind, cure=f"deadweight run {file}")
        base = found.model_dump(exclude_unset=True)
    return _run(build_study(kind, common.located({**base, **flags, **common.options()})), common, default)


def _run(study: Study, common: Common, default: Path, where: Where | None = None) -> int:
    from deadweight.lab.progress import Watch
    from deadweight.lab.ranks import leads
    from deadweight.studies import Plan, plan
    from deadweight.studies.frame.run import run as run_cells
    from deadweight.studies.frame.run import with_page

    out = common.out or default
    if common.dry_run:
        return dry_run(plan(study), common.json, 1 if where is None else where.jobs or 1)
    with Watch(progress(common) if leads() else Console(quiet=True)) as watch:
        chosen = {} if where is None else where.chosen()
        records: Records = run_cells(study, out, observer=watch, budget=common.seconds, **chosen)
    if not leads():  # of processes a launcher started together, the first one tells; it must not be ended for us
        return 0
    if common.verbose:
        tell_failures(records)
    found = with_page(records, Plan.read(out / "plan.json"), out / "report.html")
    return tell(found, common.json, quiet=common.quiet)
