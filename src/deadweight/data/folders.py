"""Class folders: ``PATH/CLASS/*.png``, or ``PATH/train/CLASS/…`` and ``PATH/val/CLASS/…``."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from deadweight.data.images import Gallery
from deadweight.errors import SourceError
from deadweight.source import Source

_EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"}
_LAYOUT = "PATH/CLASS/image.png, or PATH/train/CLASS/… and PATH/val/CLASS/…"
_DECODE_ALL = 20_000
SMALL = 32


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _EXTENSIONS and path.is_file())


def _classes(folder: Path, source: Source) -> list[str]:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        loose = len(_pictures(folder))
        raise SourceError(
            f"{source.text!r}: {folder} has no class folders" + (f" ({loose} loose images)" if loose else ""),
            expected=_LAYOUT,
            cure="put the images of each class into a folder of its own",
        )
    return names


def gallery(source: Source) -> Gallery:
    root = Path(source.name).expanduser()
    if not root.is_dir():
        raise SourceError(f"{source.text!r}: there is no such folder", expected=_LAYOUT, cure="check the path")
    held = next((root / name for name in ("val", "validation", "valid", "test") if (root / name).is_dir()), None)
    split = held is not None and (root / "train").is_dir()
    parts = [root / "train", held] if split and held is not None else [root]
    classes = _classes(parts[0], source)
    files: list[Path] = []
    labels: list[int] = []
    validation: list[int] = []
    for number, part in enumerate(parts):
        unknown = sorted(set(_classes(part, source)) - set(classes))
        if unknown:
            raise SourceError(
                f"{source.text!r}: {part.name}/ has classes that train/ lacks: {', '.join(unknown[:5])}",
                expected="the same class folders in both",
            )
        for label, name in enumerate(classes):
            found = _pictures(part / name) if (part / name).is_dir() else []
            if not found:
                raise SourceError(
                    f"{source.text!r}: the class folder {part / name} holds no images",
                    expected=f"at least one file ending in {', '.join(sorted(_EXTENSIONS))}",
                    cure="remove the empty folder or fill it",
                )
            if number:
                validation += range(len(files), len(files) + len(found))
            files += found
            labels += [label] * len(found)
    if len(files) < 2:
        raise SourceError(f"{source.text!r} holds {len(files)} image", expected="at least two")
    return Gallery(
        open=functools.partial(_open, files),
        labels=tuple(labels),
        classes=tuple(classes),
        validation=tuple(validation) if split else None,
        fingerprint=functools.partial(_fingerprint, root, files),
        transform=_small,
        check=functools.partial(_check, source, files),
    )


def _open(files: Sequence[Path], index: int) -> Image.Image:
    with Image.open(files[index]) as picture:
        picture.load()
        return picture.copy()


def _check(source: Source, files: Sequence[Path], used: Sequence[int]) -> None:
    """Decode every image that will be used (only its header, for very large sets), so that none fails later."""
    broken: list[Path] = []
    for index in used:
        try:
            with Image.open(files[index]) as picture:
                picture.load() if len(used) <= _DECODE_ALL else picture.verify()
        except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError):
            broken.append(files[index])
    if broken:
        shown = ", ".join(str(path) for path in broken[:3])
        raise SourceError(
            f"{source.text!r}: {len(broken)} of {len(used)} images cannot be read: {shown}",
            expected="whole image files",
            cure="repair or remove them",
        )


def _fingerprint(root: Path, files: Sequence[Path], used: Sequence[int]) -> str:
    total = hashlib.blake2b(digest_size=12)
    for index in used:
        total.update(str(files[index].relative_to(root)).encode())
        total.update(hashlib.blake2b(files[index].read_bytes(), digest_size=16).digest())
    return total.hexdigest()


def _small(picture: Image.Image) -> Tensor:
    """(3, 32, 32) in [0, 1]: what a small model is trained on when no model says its size."""
    from torchvision.transforms import v2

    pipeline = v2.Compose(
        [v2.Resize(SMALL), v2.CenterCrop((SMALL, SMALL)), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    )
    prepared: Tensor = pipeline(picture.convert("RGB"))
    return prepared
