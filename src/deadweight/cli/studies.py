"""The verbs that compute: the audit, the four studies, and `run` for a study in a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from deadweight.cli.app import app
from deadweight.cli.dry_run import dry_run
from deadweight.cli.options import Common, given
from deadweight.cli.telling import progress, tell, tell_failures
from deadweight.cli.where import Where
from deadweight.errors import InputError

if TYPE_CHECKING:
    from deadweight.lab import Records
    from deadweight.studies import Study


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
    options = given(vision=vision, images=images, language=language, tasks=tasks, studies=studies)
    return _run(build_study("audit", {**options, **common.options()}), common, Path("audit"))


@app.command
def mlp(
    *,
    study: Path | None = None,
    vision: str | None = None,
    images: str | None = None,
    language: str | None = None,
    text: str | None = None,
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
        language: a causal language model of your own, cut and refitted and examined without training.
        text: what it is refitted and measured on: embedded:stdlib, text:PATH.
        seeds: one training run a variant and seed.
        epochs: of each training run.
    """
    options = given(vision=vision, images=images, language=language, text=text, seeds=seeds, epochs=epochs)
    return _study("mlp", study, options, common)


@app.command
def depth(
    *,
    study: Path | None = None,
    vision: str | None = None,
    compare: list[str] | None = None,
    small: list[int] | None = None,
    images: str | None = None,
    experiments: list[str] | None = None,
    language: str | None = None,
    text: str | None = None,
    common: Common | None = None,
) -> int:
    """Which layers still do something for the task?

    Example: deadweight depth --vision timm:vit_base_patch16_224 --images folder:imagenet/val --limit 2000

    Args:
        study: a YAML file or packaged study with all options; flags override it.
        vision: the model whose layers are looked at.
        compare: more models, shown beside it; may be repeated.
        small: depths of small ViTs to train on the images and compare, in place of a model; may be repeated.
        images: labelled images.
        experiments: what to try beside leaving blocks out: positions, cls, shorten, exit; may be repeated.
        language: a causal language model whose blocks are left out in turn.
        text: what the language model predicts: embedded:stdlib or text:PATH.
    """
    options = given(
        vision=vision, compare=compare, small=small, images=images, experiments=experiments, language=language,
        text=text,
    )  # fmt: skip
    return _study("depth", study, options, common)


@app.command
def icl(
    *,
    study: Path | None = None,
    language: list[str] | None = None,
    tasks: list[str] | None = None,
    k: list[int] | None = None,
    seeds: list[int] | None = None,
    conditions: list[str] | None = None,
    decoding: str | None = None,
    demonstrations: str | None = None,
    too_long: str | None = None,
    compare_dtype: str | None = None,
    common: Common | None = None,
) -> int:
    """Do demonstrations override label meanings, or only refine a prior?

    Example: deadweight icl --language hf:my_model --tasks embedded:sentiment --k 4 --k 16

    Args:
        study: a YAML file or packaged study with all options; flags override it.
        language: causal language models, or openai:http://HOST:PORT/v1?model=NAME; may be repeated.
        tasks: embedded:NAME, csv:PATH?text=COLUMN&label=COLUMN, jsonl:…, parquet:…; may be repeated.
        k: numbers of demonstrations; may be repeated.
        seeds: one set of demonstrations a seed.
        conditions: zero-shot, natural, inverted, random, abstract, nonsense, inverted:SHARE; may be repeated.
        decoding: sum, mean or calibrated likelihood of the labels, or greedy generation.
        demonstrations: shared by all items of a seed, or per-item.
        too_long: refuse prompts beyond the model's context, or drop their last demonstrations.
        compare_dtype: ask everything again in this dtype, to see what the arithmetic alone changes.
    """
    options = given(
        language=language, tasks=tasks, k=k, seeds=seeds, conditions=conditions, decoding=decoding,
        demonstrations=demonstrations, too_long=too_long, compare_dtype=compare_dtype,
    )  # fmt: skip
    return _study("icl", study, options, common)


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
        text: what the small GPT-2 learns: embedded:stdlib, text:PATH or hf:DATASET.
        steps: training steps of each mechanism.
        seeds: one training run a mechanism and seed.
    """
    return _study("attention", study, given(mechanisms=mechanisms, text=text, steps=steps, seeds=seeds), common)


@app.command
def run(study: str, *, where: Where | None = None, common: Common | None = None) -> int:
    """Run a study from a YAML file, or a packaged one by name; resumes by itself.

    Example: deadweight run mini-2512.01059 --out runs/mini --dry-run

    Args:
        study: path of a YAML file, or a name from `deadweight list studies`.
    """
    from deadweight.studies import build_study, load_study
    from deadweight.studies.running import run_name

    common = common or Common()
    found = load_study(study)
    if common.options():
        found = build_study(found.kind, {**found.model_dump(exclude_unset=True), **common.options()})
    return _run(found, common, Path("runs") / run_name(study), where)


def _study(kind: str, file: Path | None, flags: dict[str, Any], common: Common | None) -> int:
    from deadweight.studies import build_study, load_study

    common = common or Common()
    base: dict[str, Any] = {}
    if file is not None:
        found = load_study(file)
        if found.kind != kind:
            raise InputError(f"{file} is a study of kind {found.kind}", expected=kind, cure=f"deadweight run {file}")
        base = found.model_dump(exclude_unset=True)
    return _run(build_study(kind, {**base, **flags, **common.options()}), common, Path("runs") / kind)


def _run(study: Study, common: Common, default: Path, where: Where | None = None) -> int:
    from deadweight.lab.progress import Watch
    from deadweight.lab.ranks import leads
    from deadweight.studies import Plan, plan
    from deadweight.studies.running import run as run_study
    from deadweight.studies.running import with_page

    out = common.out or default
    if common.dry_run:
        return dry_run(plan(study), common.json, 1 if where is None else where.jobs or 1)
    with Watch(progress(common) if leads() else Console(quiet=True)) as watch:
        chosen = {} if where is None else where.chosen()
        records: Records = run_study(study, out, observer=watch, budget=common.seconds, **chosen)
    if not leads():  # of processes a launcher started together, the first one tells; it must not be ended for us
        return 0
    if common.verbose:
        tell_failures(records)
    found = with_page(records, Plan.read(out / "plan.json"), out / "report.html")
    return tell(found, common.json, quiet=common.quiet)
