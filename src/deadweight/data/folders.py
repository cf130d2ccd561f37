"""Class folders: ``PATH/CLASS/*.png``, or ``PATH/train/CLASS/…`` and ``PATH/val/CLASS/…``."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from deadweight.data.eight_bits import UnknownScaleError, deepest_value, eight_bits
from deadweight.data.images import Gallery
from deadweight.data.layout import EXTENSIONS, LAYOUT, class_names, layout, left_out, pictures
from deadweight.errors import SourceError
from deadweight.source import Source

_DECODE_ALL = 20_000
_TWELVE_BITS = (1 << 12) - 1
SMALL = 32


def gallery(source: Source) -> Gallery:
    """The pictures of ``folder:PATH[?train=NAME&validation=NAME&bits=DEPTH]``."""
    root = Path(source.name).expanduser()
    if not root.is_dir():
        raise SourceError(f"{source.text!r}: there is no such folder", expected=LAYOUT, cure="check the path")
    bits = source.number("bits", lowest=9, highest=16)
    found = layout(root, source)
    parts = [part for part in (found.training, found.validation) if part is not None]
    classes = class_names(parts[0], source)
    files: list[Path] = []
    labels: list[int] = []
    notes: list[str] = []
    for part in parts:
        unknown = sorted(set(class_names(part, source)) - set(classes))
        if unknown:
            raise SourceError(
                f"{source.text!r}: {part.name}/ has classes that {parts[0].name}/ lacks: {', '.join(unknown[:5])}",
                expected="the same class folders in both",
            )
        for label, name in enumerate(classes):
            mine = sorted(pictures(part / name)) if (part / name).is_dir() else []
            if not mine and (part / name).is_dir():
                raise SourceError(
                    f"{source.text!r}: the class folder {part / name} holds no images",
                    expected=f"at least one file ending in {', '.join(sorted(EXTENSIONS))}",
                    cure="remove the empty folder or fill it",
                )
            if not mine:
                notes.append(f"{part.name}/ has no images of the class {name}")
            files += mine
            labels += [label] * len(mine)
        if part is parts[0]:
            first = len(files)
    aside = [path for part in parts for name in classes if (part / name).is_dir() for path in left_out(part / name)]
    if aside:
        notes.append(f"{len(aside)} hidden or thumbnail images are left out, such as {aside[0].relative_to(root)}")
    if len(files) < 2:
        raise SourceError(f"{source.text!r} holds {len(files)} image", expected="at least two")
    return Gallery(
        open=functools.partial(_open, files, bits),
        labels=tuple(labels),
        classes=tuple(classes),
        validation=tuple(range(first, len(files))) if len(parts) > 1 else None,
        fingerprint=functools.partial(_fingerprint, root, files),
        transform=small,
        check=functools.partial(_check, source, files, bits),
        notes=tuple(notes),
    )


def _open(files: Sequence[Path], bits: int | None, index: int) -> Image.Image:
    with Image.open(files[index]) as picture:
        picture.load()
        return eight_bits(picture, bits).copy()


def _check(source: Source, files: Sequence[Path], bits: int | None, used: Sequence[int]) -> None:
    """Decode every image that will be used (only its header, for very large sets), so that none fails later."""
    broken: list[Path] = []
    unscaled: list[str] = []
    deepest: list[int] = []
    for index in used:
        try:
            with Image.open(files[index]) as picture:
                if len(used) > _DECODE_ALL:
                    picture.verify()
                    continue
                picture.load()
                deepest += [value] if (value := deepest_value(picture)) is not None else []
                eight_bits(picture, bits)
        except UnknownScaleError as problem:
            unscaled.append(f"{files[index]} ({problem})")
        except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError):
            broken.append(files[index])
    if broken:
        shown = ", ".join(str(path) for path in broken[:3])
        raise SourceError(
            f"{source.text!r}: {len(broken)} of {len(used)} images cannot be read: {shown}",
            expected="whole image files",
            cure="repair or remove them",
        )
    if unscaled:
        raise SourceError(
            f"{source.text!r}: nothing says which value is white in {len(unscaled)} of {len(used)} images: "
            + ", ".join(unscaled[:3]),
            expected="8 or 16 bits a channel, or floats in [0, 1]",
            cure="write them as 8-bit or 16-bit PNG",
        )
    if bits is None and deepest and max(deepest) <= _TWELVE_BITS:
        raise SourceError(
            f"{source.text!r}: {len(deepest)} images have 16 bits, and none of their values is above {max(deepest)}",
            expected="what value is white",
            cure="write ?bits=12 for pictures of 12 bits, or ?bits=16 where they really are so dark",
        )


def _fingerprint(root: Path, files: Sequence[Path], used: Sequence[int]) -> str:
    total = hashlib.blake2b(digest_size=12)
    for index in used:
        total.update(str(files[index].relative_to(root)).encode())
        total.update(hashlib.blake2b(files[index].read_bytes(), digest_size=16).digest())
    return total.hexdigest()


def small(picture: Image.Image) -> Tensor:
    """(3, 32, 32) in [0, 1]: what a small model is trained on when no model says its size."""
    from torchvision.transforms import v2

    pipeline = v2.Compose(
        [v2.Resize(SMALL), v2.CenterCrop((SMALL, SMALL)), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    )
    prepared: Tensor = pipeline(picture.convert("RGB"))
    return prepared
