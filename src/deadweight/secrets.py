"""What may be told: no secret in records, attempts, logs or errors, and nothing that commands a terminal."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

_NAMES = re.compile(
    r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|API_?KEY|ACCESS_KEY|CREDENTIAL)S?(_|$)|KEY$", re.IGNORECASE
)
_SHAPES = re.compile(
    r"hf_[A-Za-z0-9]{20,}"  # Hugging Face
    r"|sk-[A-Za-z0-9_-]{20,}"  # OpenAI, Anthropic
    r"|gh[pousr]_[A-Za-z0-9]{30,}"  # GitHub
    r"|AKIA[A-Z0-9]{16}"  # AWS
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"  # user:password@host
    r"|(?<=[?&](?i:token)=)[^&\s\"']+"
    r"|(?<=[?&](?i:api_key)=)[^&\s\"']+"
    r"|(?<=[?&](?i:password)=)[^&\s\"']+"
)
HIDDEN = "[hidden]"
_SHORTEST = 8  # a shorter value of a variable would blot out ordinary words


def hide(text: str) -> str:
    """`text` with the values of secret environment variables, and whatever looks like a key, left out."""
    return _without(text, _values())


def _without(text: str, secret: Sequence[str]) -> str:
    if len(text) < _SHORTEST:
        return text
    for value in secret:
        text = text.replace(value, HIDDEN)
    return _SHAPES.sub(HIDDEN, text)


def hidden(value: Any) -> Any:
    """`value`, plain data of any depth, with every text in it as :func:`hide` leaves it."""
    secret = _values()

    def walk(one: Any) -> Any:
        if isinstance(one, str):
            return _without(one, secret)
        if isinstance(one, Mapping):
            return {walk(name): walk(held) for name, held in one.items()}
        return [walk(held) for held in one] if isinstance(one, (list, tuple)) else one

    return walk(value)


def holds_secret(text: str) -> bool:
    """Whether `text` holds something that must not be written down."""
    return hide(text) != text


def printable(text: str) -> str:
    """`text` without what would move a terminal's cursor, ring it or hide words in it."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def _values() -> list[str]:
    """Values of the environment's secret variables, the longest first."""
    found = {value for name, value in os.environ.items() if _NAMES.search(name) and len(value) >= _SHORTEST}
    return sorted(found, key=len, reverse=True)
