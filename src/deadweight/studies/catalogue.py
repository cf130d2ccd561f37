"""What there is to choose from, for `deadweight list`."""

from __future__ import annotations

from collections.abc import Callable

from deadweight.errors import InputError
from deadweight.registry import did_you_mean
from deadweight.source_options import FACTORY, MODEL_OPTIONS

Rows = list[tuple[str, str]]


def _first_line(thing: object) -> str:
    return ((getattr(thing, "__doc__", "") or "").strip().splitlines() or [""])[0].replace("``", "")


def _models() -> Rows:
    from deadweight.loading import MODEL_SOURCES
    from deadweight.models import EMBEDDED

    kinds = [(f"{name}:", _first_line(MODEL_SOURCES.get(name))) for name in MODEL_SOURCES.names()]
    options = [
        (f"  {kind}:…?{name}=", about)
        for kind, own in MODEL_OPTIONS.items()
        for name, about in [*own.items(), *([("OPTION", FACTORY[kind])] if kind in FACTORY else [])]
    ]
    return [(f"embedded:{name}", about) for name, about in EMBEDDED.items()] + kinds + options


def _data() -> Rows:
    from deadweight.data import embedded, text

    return [
        *((f"embedded:{name}", about) for name, about in {**embedded.EMBEDDED, **text.EMBEDDED}.items()),
        ("folder:PATH", "images: class folders, or train/ and val/ that hold them"),
        ("hf:DATASET[:CONFIG][@REV]", "images, or text to train on, through `datasets`: the hub, its cache, a folder"),
        ("text:PATH", "text: a file, or a folder of .txt, .md and .py files"),
        ("csv:PATH?text=COLUMN&label=COLUMN", "rows of a classification task; jsonl: and parquet: alike"),
    ]


def _tasks() -> Rows:
    from deadweight.prompting import TASKS, load_task
    from deadweight.prompting.public_tasks import PUBLIC

    embedded = [
        (f"embedded:{name}", f"{len(task.items)} items, labels {', '.join(task.label_words)}")
        for name in TASKS.names()
        for task in [load_task(f"embedded:{name}")]
    ]
    return embedded + [
        (f"hf:{name}", f"of the hub, split {public.split}, labels {', '.join(public.words)}")
        for name, public in PUBLIC.items()
    ]


def _mechanisms() -> Rows:
    from deadweight.attention import MECHANISMS

    return [(name, _first_line(MECHANISMS.get(name))) for name in MECHANISMS.names()]


def _probes() -> Rows:
    from deadweight.probes import PROBES

    return [(name, PROBES.get(name).about) for name in PROBES.names()]


def _studies() -> Rows:
    from deadweight.studies.frame.run import load_study, packaged_studies
    from deadweight.studies.frame.study import STUDIES

    kinds = [(name, _first_line(STUDIES.get(name))) for name in STUDIES.names()]
    return kinds + [(name, f"packaged: {load_study(name).kind}") for name in packaged_studies()]


LISTS: dict[str, Callable[[], Rows]] = {
    "models": _models,
    "data": _data,
    "tasks": _tasks,
    "mechanisms": _mechanisms,
    "probes": _probes,
    "studies": _studies,
}


def catalogue(what: str) -> Rows:
    """(name, one line about it) of everything of a kind; unknown kinds raise :class:`InputError`."""
    if what not in LISTS:
        raise InputError(f"nothing to list under {what!r}", expected="a kind", cure=did_you_mean(what, list(LISTS)))
    return LISTS[what]()
