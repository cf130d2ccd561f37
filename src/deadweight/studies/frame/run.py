"""From a study to its records, findings and page: plan, run, write."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from deadweight.errors import InputError
from deadweight.lab import Engine, Findings, Observer, Records, Store, run_cells, write_atomically
from deadweight.lab.engines import EXECUTORS
from deadweight.lab.executor import InProcess
from deadweight.lab.limits import Limits
from deadweight.lab.ranks import Leader, follow, leads, started_together
from deadweight.lab.status import orphans
from deadweight.models import pick_device
from deadweight.registry import did_you_mean
from deadweight.secrets import holds_secret
from deadweight.studies.frame.page import write_report
from deadweight.studies.frame.plan import Plan, read_yaml
from deadweight.studies.frame.study import STUDIES, Study


def build_study(kind: str, options: Mapping[str, Any]) -> Study:
    """A study from its options; what does not fit raises :class:`InputError` that names the option."""
    study = STUDIES.get(kind)
    try:
        return study(**options)
    except ValidationError as problem:
        first = problem.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        known = sorted(study.model_fields)
        if first["type"] == "extra_forbidden":
            raise InputError(
                f"the {kind} study has no option {name!r}",
                expected="one of its options",
                cure=did_you_mean(name, known),
            ) from problem
        raise InputError(
            f"{kind} study: {name} = {first['input']!r}: {first['msg']}",
            expected=str(study.model_fields[first["loc"][0]].description or "a value of another kind")
            if first["loc"] and first["loc"][0] in study.model_fields
            else "options that fit together",
            cure=f"see `deadweight {kind} --help`",
        ) from problem


def packaged_studies() -> dict[str, Path]:
    """The studies that ship with the package, by name."""
    folder = Path(str(resources.files("deadweight.studies")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_study(study: str | os.PathLike[str] | Study) -> Study:
    """A study from a YAML file, from the name of a packaged one (``mini-2512.01059``), or as it is.

    A file reads ``study: mlp`` and the study's options. Raises :class:`InputError` for an unknown name, YAML that
    cannot be read, and options the study does not have.

    >>> load_study("mini-2511.21635").small
    (4, 8, 12)
    """
    if isinstance(study, Study):
        return study
    packaged = packaged_studies()
    path = packaged.get(str(study), Path(study))
    if not path.is_file():
        raise InputError(
            f"there is no study {str(study)!r}",
            expected="a YAML file, or the name of a packaged study",
            cure=did_you_mean(str(study), sorted(packaged)),
        )
    options = read_yaml(path)
    if not isinstance(options, dict) or not isinstance(options.get("study"), str):
        raise InputError(
            f"{path} does not say which study it is",
            expected="a mapping with the key `study`",
            cure=f"begin it with `study: {STUDIES.names()[0]}`",
        )
    odd = [name for name in options if not isinstance(name, str)]
    if odd:
        raise InputError(f"{path}: the option {odd[0]!r} is not a word", expected="names of options, e.g. `seed: 0`")
    return build_study(options.pop("study"), options)


def plan(study: Study) -> Plan:
    """What `study` would do here. Reads the sources as far as is needed to refuse bad ones.

    Raises :class:`InputError` where an option holds a secret: options are written into records and pages.
    """
    planned = Plan(tuple(study.cells()), tuple(study.skipped))
    if holds_secret(planned.as_text()) or holds_secret(yaml.safe_dump(study.model_dump(mode="json"))):
        raise InputError(
            "an option of the study holds a secret, and options are written into every record",
            expected="options without keys, tokens or passwords",
            cure="give it in the environment, e.g. HF_TOKEN, or log in with `hf auth login`",
        )
    return planned


def run(
    study: str | os.PathLike[str] | Study,
    out: str | os.PathLike[str] | None = None,
    executor: str = "local",
    *,
    jobs: int | None = None,
    timeout: float | None = None,
    memory: int | None = None,
    retries: int = 1,
    address: str | None = None,
    cpus: float = 1,
    gpus: float = 0,
    observer: Observer | None = None,
    budget: float | None = None,
) -> Records:
    """Run a study, or go on where it stopped; cells that have their record are not done again.

    Parameters
    ----------
    study:
        A YAML file, the name of a packaged study, or a :class:`Study`.
    out:
        The run's folder; by default ``runs/NAME``.
    executor:
        ``"local"``: this machine; ``"ray"``: a cluster (needs the extra ``ray``). The results are the same.
    jobs:
        Cells at a time. Here one after another in this process by default; 0: as many as there are cores. On a cluster
        as many as have room.
    timeout:
        Seconds a cell may take; one that takes longer fails.
    memory:
        Bytes a cell may allocate; one that wants more fails, and no more run at a time than fit.
    retries:
        How often a cell is tried again whose process or node died under it.
    address, cpus, gpus:
        Of the Ray cluster (default: ``RAY_ADDRESS``, else this machine alone), and what a cell takes of it.
    budget:
        Seconds after which no further cell is started.

    Returns
    -------
    Records
        What was found, with ``.failed`` for cells that lack their record. ``report.html`` and ``findings.json``
        lie in `out`.

    Examples
    --------
    >>> import tempfile
    >>> from deadweight.studies import build_study
    >>> options = {"limit": 20, "epochs": 1, "seeds": (0,), "dim": 16, "depth": 2, "heads": 2, "patch_size": 4}
    >>> records = run(build_study("mlp", options), tempfile.mkdtemp())
    >>> len(records), len(records.failed), records.findings()[0].verdict
    (4, 0, 'undecided')
    """
    limits = Limits(jobs, timeout, memory, retries, address, cpus, gpus)
    engine = EXECUTORS.get(executor)(limits)
    if started_together() > 1:
        engine = _together(engine)
    name = run_name(study)
    todo = load_study(study)
    planned = plan(todo)
    store = Store(out if out is not None else Path("runs") / name)
    if not leads():
        try:
            follow(planned.cells, todo.run, store.folder, str(pick_device(todo.device)))
        finally:
            todo.close()
        return collect(todo, planned, store)
    store.prepare()
    resolved = {"study": todo.kind, **todo.model_dump(mode="json")}
    write_atomically(store.folder / "study.yaml", yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))
    write_atomically(store.folder / "plan.json", planned.as_text())
    try:
        device = str(pick_device(todo.device))
        if not isinstance(engine, InProcess):
            todo.close()  # other processes load what they need themselves
        run_cells(
            planned.cells, todo.run, store,
            device=device, observer=observer, budget=budget, engine=engine, retries=retries,
        )  # fmt: skip
    finally:
        todo.close()
        if isinstance(engine, Leader):
            engine.close()
    return write_results(todo, planned, store)


def _together(engine: Engine) -> Engine:
    """The engine of the first of several processes that a launcher started."""
    if not isinstance(engine, InProcess):
        raise InputError(
            "processes that were started together (torchrun, accelerate launch) and limits or an executor of cells",
            expected="one or the other: the launcher's processes share each training cell, one cell after another",
            cure="leave out --executor, --jobs, --timeout and --memory, or start without the launcher",
        )
    return Leader()


def run_name(study: str | os.PathLike[str] | Study) -> str:
    """What the run's folder is called where nobody says: the file's or the packaged study's name, or the kind."""
    if isinstance(study, Study):
        return study.kind
    return Path(study).stem.strip(".") or "study"


def collect(study: Study, planned: Plan, store: Store) -> Records:
    """The records of the planned cells that exist, and the failures of those that do not."""
    found = [(cell, store.record(cell)) for cell in planned.cells]
    return Records(
        [record for _, record in found if record is not None],
        [store.failure(cell) for cell, record in found if record is None],
        study.judge,
    )


def write_results(study: Study, planned: Plan, store: Store) -> Records:
    """Write ``findings.json`` and ``report.html`` from the records alone."""
    records = collect(study, planned, store)
    records.findings().write(store.folder / "findings.json")
    write_report(store.folder / "report.html", study, records, planned.skipped)
    return records


def open_run(folder: str | os.PathLike[str]) -> tuple[Study, Plan, Store]:
    """What lies in a run folder; nothing is computed or written, no source is opened."""
    path = Path(folder)
    for needed in ("study.yaml", "plan.json"):
        if not (path / needed).is_file():
            raise InputError(
                f"{path} is not a run folder: it has no {needed}",
                expected="a folder written by `deadweight audit` or `deadweight run`",
                cure="give the folder that was named with --out",
            )
    return load_study(path / "study.yaml"), Plan.read(path / "plan.json"), Store(path)


def read_run(folder: str | os.PathLike[str]) -> tuple[Records, Findings]:
    """The records of a run folder and what follows from them; nothing is written."""
    study, planned, store = open_run(folder)
    records = collect(study, planned, store)
    return records, records.findings()


def retell(folder: str | os.PathLike[str]) -> Findings:
    """Rebuild the findings and the page of a run folder; nothing is computed, no source is opened."""
    study, planned, store = open_run(folder)
    return with_page(write_results(study, planned, store), planned, store.folder / "report.html")


def with_page(records: Records, planned: Plan, page: Path) -> Findings:
    """The findings, knowing their page and what was left out."""
    return Findings(
        list(records.findings()),
        page=page,
        skipped=list(planned.skipped),
        failed=len(records.failed),
        orphans=len(orphans(planned.cells, Store(page.parent))),
    )


def audit(
    out: str | os.PathLike[str] = "audit/",
    *,
    observer: Observer | None = None,
    budget: float | None = None,
    **options: Any,
) -> Findings:
    """Run the four studies on the embedded defaults, or on what the options name, and say what is dead weight.

    Options are those of the audit study: ``vision``, ``images``, ``language``, ``tasks``, ``seed``, ``limit`` …

    >>> import deadweight as dw
    >>> study = dw.load_study("mini-2512.01059")  # the audit's studies are studies like this one
    >>> study.kind, len(study.seeds)
    ('mlp', 5)
    """
    study = build_study("audit", options)
    records = run(study, out, observer=observer, budget=budget)
    return with_page(records, Plan.read(Path(out) / "plan.json"), Path(out) / "report.html")
