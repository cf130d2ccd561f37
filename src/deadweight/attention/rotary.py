"""Rotary position embedding (Su et al. 2021), halves paired as in GPT-NeoX and Llama: (i, i + D/2)."""

from __future__ import annotations

import torch
from torch import Tensor

from deadweight.errors import InputError


def check_rotary(width: int, base: float, name: str = "head width") -> None:
    """Refuse a width that cannot be split into pairs, and a base that gives no wavelengths."""
    if width < 2 or width % 2:
        raise InputError(
            f"rotary dimension ({name}) {width}",
            expected="an even number, for dimensions turn in pairs",
            cure="choose heads so that dim / heads is even, or an even rope_dim",
        )
    if not base > 1:
        raise InputError(f"rope {base}", expected="a base above 1", cure="10000 is usual; None rotates nothing")


def rotate(x_BHTD: Tensor, start: int, base: float) -> Tensor:
    """Turn pair i of the token at position t by t · base^(−2i/D); the first token stands at `start`.

    Angles are taken in float64, so that far positions lose nothing whatever the dtype of `x_BHTD`.
    """
    tokens, width = x_BHTD.shape[-2:]
    half = width // 2
    place = {"dtype": torch.float64, "device": "cpu"}
    frequency = base ** (-torch.arange(half, **place) / half)  # type: ignore[call-overload]
    angle_TD = torch.arange(start, start + tokens, **place)[:, None] * frequency  # type: ignore[call-overload]
    cos, sin = angle_TD.cos().to(x_BHTD), angle_TD.sin().to(x_BHTD)
    one, two = x_BHTD[..., :half], x_BHTD[..., half:]
    return torch.cat([one * cos - two * sin, two * cos + one * sin], -1)
