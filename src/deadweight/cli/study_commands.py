"""One command per study, made from the study's own options: the same words in Python, in YAML and here."""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from cyclopts import Parameter
from pydantic.fields import FieldInfo

from deadweight.cli.options import Common
from deadweight.cli.whole import Whole
from deadweight.errors import InputError

# What `deadweight VERB --help` begins with; each study's options follow from its fields.
VERBS = {
    "audit": """Run the four studies and say what is dead weight.

Without sources it trains small models on embedded data and examines SmolLM2-135M; a model of your own is examined,
never retrained. It goes on where it stopped when it is called again on the same folder.

Example: deadweight audit --vision file:my_vit --images folder:my_pictures --out audit/""",
    "mlp": """How much of the MLPs can be shared or narrowed without losing accuracy?

Example: deadweight mlp --images folder:my_pictures --seeds 0 --seeds 1 --seeds 2""",
    "depth": """Which layers still do something for the task?

Example: deadweight depth --vision timm:vit_base_patch16_224 --images folder:imagenet/val --limit 2000""",
    "icl": """Do demonstrations override label meanings, or only refine a prior?

Example: deadweight icl --language hf:my_model --tasks embedded:sentiment --k 4 --k 16""",
    "attention": """Which attention mechanism costs what: time, memory, energy, quality?

Example: deadweight attention --mechanisms sdpa --mechanisms linear --steps 300""",
}
_DEFAULT_OUT = {"audit": Path("audit")}


def command(kind: str) -> Callable[..., int]:
    """The command of one study: a function whose parameters are the study's options."""
    from deadweight.studies import STUDIES

    fields = STUDIES.get(kind).model_fields
    own = {name: field for name, field in fields.items() if name not in Common.__dataclass_fields__}

    def verb(study: Path | None = None, common: Common | None = None, **options: Any) -> int:
        from deadweight.cli.run import run_study

        flags = {name: _value(name, value, own[name]) for name, value in options.items() if value not in (None, [])}
        return run_study(kind, study, flags, common or Common(), _DEFAULT_OUT.get(kind, Path("runs") / kind))

    from_file = Annotated[
        Path | None, Parameter(help="a YAML file or packaged study with all options; flags override it")
    ]
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("study", keyword, default=None, annotation=from_file)]
    parameters += [inspect.Parameter(name, keyword, default=None, annotation=_flag(name, own[name])) for name in own]
    parameters += [inspect.Parameter("common", keyword, default=None, annotation=Common | None)]
    verb.__name__ = kind
    verb.__doc__ = VERBS[kind]
    verb.__signature__ = inspect.Signature(parameters, return_annotation=int)  # type: ignore[attr-defined]
    verb.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return verb


def _flag(name: str, field: FieldInfo) -> Any:
    """The type and help of a study's option as a flag: lists repeat it, mappings are JSON."""
    annotation = _plain(field.annotation)
    more = {list: "; may be repeated", dict: ", as JSON"}.get(get_origin(annotation) or annotation, "")
    typed = str if (get_origin(annotation) or annotation) is dict else annotation
    shown = field.get_default(call_default_factory=True, validated_data={})
    default = (lambda _: json.dumps(shown)) if shown not in (None, (), {}) else (lambda _: "")
    negative = f"--no-{name.replace('_', '-')}" if typed is bool else ""
    help_text = f"{field.description or name}{more}"
    return Annotated[
        typed | None, Parameter(help=help_text, negative=negative, show_default=default if shown is not None else False)
    ]


def _plain(annotation: Any) -> Any:
    """``tuple[int, ...]`` as a list, an optional type as the type itself."""
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [part for part in get_args(annotation) if part is not type(None)]
        return _plain(inner[0]) if len(inner) == 1 else str
    if get_origin(annotation) is tuple:
        return list[_plain(get_args(annotation)[0])]  # type: ignore[misc]
    return Whole if annotation is int else annotation


def _value(name: str, value: Any, field: FieldInfo) -> Any:
    kind = _plain(field.annotation)
    if (get_origin(kind) or kind) is not dict:
        return value
    try:
        found = json.loads(value)
    except ValueError as problem:
        raise InputError(
            f"--{name.replace('_', '-')} {value!r}: {problem}", expected='JSON, e.g. {"lr": 0.01}'
        ) from problem
    if not isinstance(found, dict):
        raise InputError(f"--{name.replace('_', '-')} {value!r}", expected='a JSON object, e.g. {"lr": 0.01}')
    return found


def __getattr__(kind: str) -> Callable[..., int]:
    """A study's command when it is first used: until then none of them is imported."""
    if kind not in VERBS:
        raise AttributeError(f"module {__name__!r} has no attribute {kind!r}")
    return command(kind)
