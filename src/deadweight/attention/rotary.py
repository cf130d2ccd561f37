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


def turns(start: int, tokens: int, width: int, base: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine, (tokens, width / 2), of the angle of each pair at each position from `start` on.

    Angles are taken in float64, so that far positions lose nothing whatever the dtype of `like`.
    """
    place = {"dtype": torch.float64, "device": "cpu"}
    frequency = base ** (-torch.arange(width // 2, **place) / (width // 2))  # type: ignore[call-overload]
    angle_TD = torch.arange(start, start + tokens, **place)[:, None] * frequency  # type: ignore[call-overload]
    return angle_TD.cos().to(like), angle_TD.sin().to(like)


def turn(x_TD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Pairs turned by the angles; by their opposites with −sin."""
    half = x_TD.shape[-1] // 2
    one, two = x_TD[..., :half], x_TD[..., half:]
    return torch.cat([one * cos - two * sin, two * cos + one * sin], -1)


def rotate(x_BHTD: Tensor, start: int, base: float) -> Tensor:
    """Turn pair i of the token at position t by t · base^(−2i/D); the first token stands at `start`."""
    return turn(x_BHTD, *turns(start, x_BHTD.shape[-2], x_BHTD.shape[-1], base, x_BHTD))
