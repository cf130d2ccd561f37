"""Models on disk: every tensor once, and what is needed to build the modules around them again."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from deadweight.anatomy.paths import remember_paths, remembered_paths
from deadweight.errors import InputError, MachineError, SourceError
from deadweight.loading.card import card
from deadweight.models.provenance import origin, set_origin
from deadweight.models.unwrap import unwrapped
from deadweight.source import Source, parse_source
from deadweight.surgery.architecture import architecture, build
from deadweight.surgery.log import replay, surgeries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deadweight.models.language import LanguageModel

SCHEMA = 1
MANIFEST, WEIGHTS, CARD = "deadweight.json", "model.safetensors", "README.md"


def save(model: nn.Module | LanguageModel, folder: str | os.PathLike[str], *, expand: bool = False) -> None:
    """Save a model so that ``load("file:folder")`` gives it back, its shared tensors still shared.

    Parameters
    ----------
    model:
        A module, or a language model, whose tokenizer is saved too.
    folder:
        Made if need be. A folder that holds a saved model is replaced whole; any other must be empty.
    expand:
        Write shared tensors once per name, and the config of a Hugging Face model, for other tools.

    Raises
    ------
    InputError
        `folder` holds other things.
    MachineError
        The disk is full or may not be written.

    Examples
    --------
    >>> import tempfile, deadweight as dw
    >>> folder = tempfile.mkdtemp() + "/small"
    >>> save(dw.drop_blocks(dw.load("embedded:digits-vit"), [3]), folder)
    >>> len(dw.load(f"file:{folder}").blocks)
    5
    """
    module = unwrapped(model if isinstance(model, nn.Module) else model.model)
    tokenizer = None if isinstance(model, nn.Module) else model.tokenizer
    target = check_target(folder)
    with _replacing(target) as fresh:
        _write(module, tokenizer, fresh, expand)


def check_target(folder: str | os.PathLike[str]) -> Path:
    """Where a model is to be saved; raises :class:`InputError` where that would overwrite other things."""
    target = Path(folder)
    if target.exists() and not (target / MANIFEST).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(
            f"{str(target)!r} holds other things", expected="a new folder", cure="save to a folder of its own"
        )
    return target


def load_saved(
    source: Source, *, pretrained: bool | None = None, model: nn.Module | None = None, **kwargs: Any
) -> nn.Module:
    """``file:FOLDER``: build the architecture, repeat the surgeries, read the weights. No network is used.

    Parameters
    ----------
    model:
        A fresh instance for a class deadweight cannot build; the surgeries and weights are put into it.

    Raises
    ------
    SourceError
        No such folder, not a saved model, or a damaged one.
    """
    folder = Path(source.name).expanduser()
    manifest = _manifest(folder)
    if model is None and "model" in source.options:
        model = _own(source, manifest)
    if kwargs:
        raise InputError(
            f"options {', '.join(sorted(kwargs))} for a saved model",
            expected="none: a saved model keeps the options it was built with",
        )
    fresh = model if model is not None else _built(manifest, folder)
    if manifest.get("paths"):
        remember_paths(fresh, manifest["paths"])
    fresh = replay(fresh, manifest["surgeries"])
    if pretrained is not False:
        _fill(fresh, _tensors(folder, manifest["aliases"]), folder)
        _tie(fresh, manifest["aliases"])
    if manifest["origin"] is not None:
        set_origin(fresh, manifest["origin"]["source"], manifest["origin"]["options"])
    return fresh.eval()


def aliases_of(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Names whose tensor is another name's: ``{name: the first name of the same tensor}``."""
    first: dict[tuple[Any, ...], str] = {}
    aliases: dict[str, str] = {}
    for name, tensor in state.items():
        place = (tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        known = first.setdefault(place, name) if tensor.numel() else name
        if known != name:
            aliases[name] = known
    return aliases


def _write(module: nn.Module, tokenizer: Any, folder: Path, expand: bool) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    state = module.state_dict()
    aliases = {} if expand else aliases_of(state)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items() if name not in aliases}
    places = [tensor.untyped_storage().data_ptr() for tensor in tensors.values()]
    if len(set(places)) < len(places):  # written once per name, or views of one storage: safetensors wants copies
        tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    try:
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    except SafetensorError as problem:  # how it reports a full disk
        raise OSError(str(problem)) from problem
    came_from = origin(module)
    if came_from is not None and parse_source(came_from["source"]).scheme == "file":
        came_from = None
    manifest = {
        "schema": SCHEMA,
        "package": _package_version(),
        "class": f"{type(module).__module__}.{type(module).__qualname__}",
        "architecture": architecture(module),
        "origin": came_from,
        "surgeries": surgeries(module),
        "aliases": aliases_of(state),
        "expanded": expand,
        "paths": remembered_paths(module),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    (folder / CARD).write_text(card(module, manifest, expanded=expand), encoding="utf-8")
    if tokenizer is not None:
        tokenizer.save_pretrained(str(folder))
    config: Any = getattr(module, "config", None)
    if expand and hasattr(config, "save_pretrained"):
        config.save_pretrained(str(folder))


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A folder to write in that takes `target`'s place when all is written."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            yield fresh
            fresh.chmod(0o755)
            old = None
            if target.exists():
                old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
                os.replace(target, old)
            os.replace(fresh, target)
            if old is not None:
                shutil.rmtree(old)
        finally:
            with suppress(FileNotFoundError):
                shutil.rmtree(fresh)
    except OSError as problem:
        raise MachineError(
            f"{str(target)!r} cannot be written: {problem.strerror or problem}",
            expected="a folder that can be written, with room for the weights",
        ) from problem


def _manifest(folder: Path) -> dict[str, Any]:
    cure = "save a model there with dw.save(model, folder)"
    if not folder.is_dir():
        raise SourceError(f"file:{folder}: there is no such folder", expected="a folder made by dw.save", cure=cure)
    path = folder / MANIFEST
    if not path.is_file():
        hint = "; a Hugging Face folder is given as hf:FOLDER" if (folder / "config.json").is_file() else ""
        raise SourceError(f"file:{folder} holds no {MANIFEST}", expected="a folder made by dw.save", cure=cure + hint)
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        wanted = {"schema", "origin", "surgeries", "aliases", "architecture"}
        if not isinstance(manifest, dict) or not wanted <= manifest.keys():
            raise ValueError("parts of it are missing")
    except ValueError as problem:
        raise SourceError(
            f"file:{folder}: {MANIFEST} is damaged ({problem})", expected="what dw.save wrote", cure="save it again"
        ) from problem
    if manifest["schema"] > SCHEMA:
        raise SourceError(
            f"file:{folder} was written by a later deadweight ({manifest.get('package')})",
            expected=f"schema {SCHEMA} or earlier",
            cure="update deadweight",
        )
    return manifest


def _built(manifest: Mapping[str, Any], folder: Path) -> nn.Module:
    if manifest["architecture"] is not None:
        return build(manifest["architecture"])
    came_from = manifest["origin"]
    own = None if came_from is None else parse_source(came_from["source"])
    if own is None or own.scheme == "python":  # what a folder names is not run because it names it
        named = "python:MODULE:FUNCTION" if own is None else f"python:{own.name}"
        raise SourceError(
            f"file:{folder} holds a {manifest.get('class')}, which deadweight did not build and cannot rebuild",
            expected="a fresh instance of it",
            cure=f'give one: dw.load("file:{folder}", model=YourClass(…)), or name the function that builds it: '
            f"file:{folder}?model={named}",
        )
    from deadweight.loading.load import load  # which loads saved models too

    options = {name: value for name, value in came_from["options"].items() if name != "pretrained"}
    return load(came_from["source"], pretrained=False, **options)


def _own(source: Source, manifest: Mapping[str, Any]) -> nn.Module:
    """A fresh model from the function that ``?model=`` names, with the options it had when it was saved."""
    from deadweight.loading.load import load  # which loads saved models too

    named = parse_source(source.options["model"])
    if named.scheme != "python":
        raise SourceError(
            f"{source.text!r}: model={source.options['model']!r}",
            expected="python:MODULE:FUNCTION, the function that builds the model",
            cure="leave it out for models of timm, torchvision and transformers",
        )
    came_from = manifest["origin"] or {"source": named.text, "options": {}}
    before = parse_source(came_from["source"])
    same = before.scheme == "python" and before.name == named.name and not named.options
    return load(before.text if same else named.text, **(came_from["options"] if same else {}))


def _tensors(folder: Path, aliases: Mapping[str, str]) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        stored: dict[str, Tensor] = load_file(folder / WEIGHTS)
    except FileNotFoundError as problem:
        raise SourceError(f"file:{folder} holds no {WEIGHTS}", expected="what dw.save wrote") from problem
    except (SafetensorError, OSError, ValueError) as problem:
        raise SourceError(
            f"file:{folder}: {WEIGHTS} is damaged ({problem})",
            expected="a whole safetensors file",
            cure="save it again",
        ) from problem
    return stored | {name: stored[first] for name, first in aliases.items() if name not in stored}


def _fill(model: nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> None:
    for name, own in [*model.named_parameters(), *model.named_buffers()]:
        if name in tensors and own.dtype != tensors[name].dtype:
            own.data = own.data.to(tensors[name].dtype)
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError as problem:
        lines = str(problem).splitlines()
        raise SourceError(
            f"file:{folder}: the weights do not fit the model: {' '.join(line.strip() for line in lines[1:4])[:300]}",
            expected=f"a {type(model).__name__} built as when it was saved",
            cure="with model=…, give an instance with the same options, before any surgery",
        ) from problem


def _tie(model: nn.Module, aliases: Mapping[str, str]) -> None:
    """Make tensors that were one when they were saved one again, where building did not do so."""
    own = dict(model.named_parameters(remove_duplicate=False))
    for name, first in aliases.items():
        if name in own and first in own and own[name] is not own[first]:
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, own[first])


def _package_version() -> str:
    try:
        return version("deadweight")
    except PackageNotFoundError:
        return "not installed"
