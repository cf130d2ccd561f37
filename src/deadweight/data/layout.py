"""Where the pictures lie in a folder: its parts, their classes, and what is none of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deadweight.errors import SourceError
from deadweight.source import Source

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"})
LAYOUT = "PATH/CLASS/image.png, or PATH/train/CLASS/… and PATH/val/CLASS/…"

# The words people use for the parts of a set, without "set", "data" and the like behind them.
_WORDS = {
    "train": "training", "training": "training", "trn": "training",
    "val": "validation", "valid": "validation", "validation": "validation", "validate": "validation",
    "dev": "validation", "devel": "validation", "development": "validation", "eval": "validation",
    "evaluation": "validation", "holdout": "validation", "heldout": "validation",
    "test": "test", "testing": "test", "tst": "test",
}  # fmt: skip
_BEHIND = re.compile(r"[-_ .]*(set|sets|data|dataset|split|images|imgs|pictures)$")
# What cameras, file servers and notebooks put beside pictures: copies of them, mostly small ones.
_NOT_CONTENT = frozenset({"@eadir", "__macosx", "#recycle", "@recycle", "$recycle.bin", "lost+found", "__pycache__"})
_SMALL_COPIES = frozenset(
    {"thumbnails", "thumbnail", "thumbs", "thumb", "_thumbs", "_thumbnails", "@thumb", "thumbcache"}
)


@dataclass(frozen=True)
class Layout:
    """The class folders of each part; `validation` is None where the folder has no part of that kind."""

    training: Path
    validation: Path | None


def layout(root: Path, source: Source) -> Layout:
    """The parts of `root`, by their names or by the options ``train=`` and ``validation=``.

    Raises :class:`SourceError` for two folders of one part, and for folders beside the parts that are none.
    """
    named: dict[str, str] = {name: source.options[name] for name in ("train", "validation") if name in source.options}
    if named:
        return _named(root, source, named)
    kinds: dict[str, list[Path]] = {}
    others = []
    for entry in folders(root):
        kind = part_of(entry.name)
        if kind is not None and (folders(entry) or _has_part_beside(root, kind)):
            kinds.setdefault(kind, []).append(entry)
        elif any(True for _ in pictures(entry)):
            others.append(entry)
    if not any(folders(part) for parts in kinds.values() for part in parts):
        return Layout(root, None)
    doubled = next((parts for parts in kinds.values() if len(parts) > 1), [])
    if doubled or others:
        what = [*doubled, *others][:5]
        raise SourceError(
            f"{source.text!r}: {', '.join(f'{path.name}/' for path in what)} beside "
            + ", ".join(sorted(f"{path.name}/" for parts in kinds.values() for path in parts if path not in what)),
            expected=LAYOUT,
            cure="say which folders are the parts: ?train=NAME&validation=NAME, or ?train=. where all are classes",
        )
    held = kinds.get("validation") or kinds.get("test")
    if "training" in kinds:
        return Layout(kinds["training"][0], held[0] if held else None)
    return Layout((held or [root])[0], None)  # one part alone is all there is


def _named(root: Path, source: Source, named: dict[str, str]) -> Layout:
    parts = {name: root / folder for name, folder in named.items()}
    for name, part in parts.items():
        if not part.is_dir():
            raise SourceError(
                f"{name}={named[name]!r}: {root} has no such folder",
                expected=f"one of {', '.join(path.name for path in folders(root)[:10])}",
            )
    if "train" not in parts:
        raise SourceError(f"{source.text!r} names no part to train on", expected="?train=NAME&validation=NAME")
    return Layout(parts["train"], parts.get("validation"))


def _has_part_beside(root: Path, kind: str) -> bool:
    """Whether a folder of another kind holds class folders: then one that holds loose pictures is a part, unsorted."""
    return any(part_of(other.name) not in (None, kind) and folders(other) for other in folders(root))


def part_of(name: str) -> str | None:
    """``training``, ``validation`` or ``test``, as a folder's name says, else None.

    >>> [part_of(name) for name in ("Train", "dev", "test_set", "training-images", "tram")]
    ['training', 'validation', 'test', 'training', None]
    """
    return _WORDS.get(_BEHIND.sub("", name.casefold()))


def folders(folder: Path) -> list[Path]:
    """The folders in `folder` that may be classes or parts, in the order of their names."""
    found = [entry for entry in folder.iterdir() if entry.is_dir() and not _is_copy(entry.name)]
    return sorted(found, key=lambda entry: entry.name)


def class_names(part: Path, source: Source) -> list[str]:
    """The names of the class folders; raises :class:`SourceError` where there are none."""
    names = [entry.name for entry in folders(part)]
    if not names:
        loose = sum(1 for _ in pictures(part))
        raise SourceError(
            f"{source.text!r}: {part} has no class folders" + (f" ({loose} loose images)" if loose else ""),
            expected=LAYOUT,
            cure="put the images of each class into a folder of its own",
        )
    return names


def pictures(folder: Path) -> Iterator[Path]:
    """The pictures at any depth in `folder`, hidden ones and copies for other programs aside."""
    return (path for path in _picture_files(folder) if not is_left_out(path, folder))


def left_out(folder: Path) -> list[Path]:
    """The picture files that :func:`pictures` passes over."""
    return [path for path in _picture_files(folder) if is_left_out(path, folder)]


def _picture_files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())


def is_left_out(path: Path, folder: Path) -> bool:
    """Whether a file is hidden, or lies in a folder that is hidden or holds other programs' copies."""
    *inner, name = path.relative_to(folder).parts
    return name.startswith(".") or any(_is_copy(part) or part.casefold() in _SMALL_COPIES for part in inner)


def _is_copy(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _NOT_CONTENT
