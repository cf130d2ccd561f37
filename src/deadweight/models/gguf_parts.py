"""GGUF files in several parts, as llama.cpp's gguf-split writes them: NAME-00001-of-00003.gguf and so on."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deadweight.errors import SourceError

_PART = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")


def parts_of(path: Path, text: str) -> list[Path]:
    """The files that make up the model `path` belongs to, the first part first; the file alone where it is whole.

    Raises :class:`SourceError` that names the parts that are missing.
    """
    found = _PART.match(path.name)
    if found is None:
        return [path]
    count = int(found["count"])
    parts = [path.with_name(f"{found['stem']}-{number:05d}-of-{count:05d}.gguf") for number in range(1, count + 1)]
    if missing := [part.name for part in parts if not part.is_file()]:
        raise SourceError(
            f"{text!r} is one of {count} parts, and {', '.join(missing[:4])} {'is' if len(missing) == 1 else 'are'} "
            f"not in {path.parent}",
            expected="all parts in one folder",
            cure="copy the missing parts there, or join them with llama.cpp's gguf-split --merge",
        )
    return parts


@contextmanager
def whole(parts: Sequence[Path], text: str) -> Iterator[Path]:
    """One file with everything that is in `parts`; a temporary one where there are several, gone afterwards."""
    if len(parts) == 1:
        if (declared := _declared(_reader(parts[0]), "split.count")) > 1:
            raise SourceError(
                f"{text!r} is one of {declared} parts, and its name does not say which",
                expected=f"names such as model-00001-of-{declared:05d}.gguf",
                cure="give the parts the names they had, or join them with llama.cpp's gguf-split --merge",
            )
        yield parts[0]
        return
    with tempfile.TemporaryDirectory(prefix="gguf-") as folder:
        joined = Path(folder) / "whole.gguf"
        _join(parts, joined, text)
        yield joined


def _join(parts: Sequence[Path], target: Path, text: str) -> None:
    from gguf import GGUFValueType, GGUFWriter

    readers = [_reader(part) for part in parts]
    first, tensors = readers[0], [tensor for reader in readers for tensor in reader.tensors]
    expected = _declared(first, "split.tensors.count")
    if expected and expected != len(tensors):
        raise SourceError(
            f"{text!r}: the {len(parts)} parts hold {len(tensors)} tensors, and the first says {expected}",
            expected="the parts of one model, whole",
            cure="copy them again: one may be of another model, or cut short",
        )
    architecture: Any = first.fields["general.architecture"]
    writer = GGUFWriter(target, architecture.contents())
    for name, field in first.fields.items():
        if name.startswith(("GGUF.", "split.")) or name == "general.architecture":
            continue
        inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], sub_type=inner)
    for tensor in tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_shape=tensor.data.shape, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _reader(path: Path) -> Any:
    from gguf import GGUFReader

    return GGUFReader(path)


def _declared(reader: Any, field: str) -> int:
    found = reader.fields.get(field)
    return 0 if found is None else int(found.contents())


__all__ = ["parts_of", "whole"]
