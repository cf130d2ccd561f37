"""Our mechanisms under the models of `transformers`, through its attention and mask interfaces.

A model keeps its own projections, rotary positions and key-value cache; only the function between them is ours, so
only mechanisms that keep the parameters can be registered. Both interfaces are needed: with the first alone a model's
mask arrives as None even where the batch is padded.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deadweight.attention.base import Projected
from deadweight.attention.build import MECHANISMS, mechanism
from deadweight.attention.eager import lower_right_mask
from deadweight.errors import InputError

PREFIX = "deadweight_"
_OTHERWISE = {"flash": "fa"}  # transformers takes every name with "flash" in it for a kernel of its own
MASKED = -1e4  # an additive mask this low leaves exp() nothing in any floating type
OPTIONS = "deadweight_attention"  # attribute of a model's config: the options of the mechanism it runs with


def hosted_names() -> list[str]:
    """The mechanisms that need nothing but what a model has: they keep its projections, and so its parameters."""
    return [name for name in MECHANISMS.names() if getattr(MECHANISMS.get(name), "keeps_parameters", False)]


def registered_name(name: str) -> str:
    """What a mechanism is called there: ``deadweight_linear``; flash is ``deadweight_fa``."""
    return PREFIX + _OTHERWISE.get(name, name)


def register() -> list[str]:
    """Make ``attn_implementation="deadweight_linear"`` and the like known to transformers; the names registered.

    Options are read from the model's config: ``model.config.deadweight_attention = {"window": 128}``. May be called
    again without harm.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    names = []
    for name in hosted_names():
        names.append(registered_name(name))
        AttentionInterface.register(names[-1], _forward_of(name))
        AttentionMaskInterface.register(names[-1], attention_mask)
    return names


def attention_mask(
    *, q_length: int, kv_length: int, allow_is_causal_skip: bool = True, **options: Any
) -> Tensor | None:
    """(B, 1, Q, S), True where a query may look; None for a plain causal square.

    transformers also leaves the mask out where queries are fewer than keys and means the first keys or the last,
    as the case may be; asked for, it says which.
    """
    from transformers.masking_utils import sdpa_mask

    square = q_length == kv_length
    return sdpa_mask(  # type: ignore[no-any-return]  # transformers is untyped to us
        q_length=q_length, kv_length=kv_length, allow_is_causal_skip=allow_is_causal_skip and square, **options
    )


@lru_cache(maxsize=64)
def _mechanism(name: str, heads: int, width: int, causal: bool, options: tuple[tuple[str, Any], ...]) -> Projected:
    with torch.device("meta"):  # the mechanism without its projections, which are the host's
        made = mechanism(name, heads * width, heads, causal=causal, **dict(options))
    assert isinstance(made, Projected)
    return made


def _forward_of(name: str) -> Any:
    def forward(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        is_causal: bool | None = None,
        **extras: Any,
    ) -> tuple[Tensor, None]:
        _refuse(name, dropout, extras)
        causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
        options = getattr(getattr(module, "config", None), OPTIONS, None) or {}
        made = _mechanism(name, query.shape[1], query.shape[3], causal, tuple(sorted(options.items())))
        if scaling is not None and name != "linear":  # ours divides by the root of the width; the rest is asked of q
            query = query * (scaling * query.shape[3] ** 0.5)
        if key.shape[1] != query.shape[1]:
            share = query.shape[1] // key.shape[1]
            key, value = key.repeat_interleave(share, 1), value.repeat_interleave(share, 1)
        if not causal and query.shape[2] != key.shape[2] and name in ("sliding_window", "block_sparse"):
            raise InputError(f"{name} across {query.shape[2]} queries and {key.shape[2]} keys", expected="as many")
        y_BHTD = attend(made, query, key, value, attention_mask)
        return y_BHTD.transpose(1, 2).contiguous(), None

    forward.__name__ = registered_name(name)
    return forward


def _refuse(name: str, dropout: float, extras: dict[str, Any]) -> None:
    if dropout:
        raise InputError(
            f"attention dropout {dropout} with {registered_name(name)}",
            expected="none: these mechanisms have no dropout between scores and values",
            cure="set attn_pdrop or attention_dropout to 0 in the model's config",
        )
    for extra in ("softcap", "position_bias", "s_aux"):
        if extras.get(extra) is not None:
            raise InputError(
                f"a model that asks attention for {extra}",
                expected="plain softmax attention in the host",
                cure="run it with attn_implementation='eager'",
            )


def attend(made: Projected, q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, mask_B1TS: Tensor | None) -> Tensor:
    """The mechanism under transformers' mask.

    Padding is cut away a sequence at a time, so that distances count real tokens and every mechanism keeps its own
    kernel; outputs of padding are zero. Another mask (packed sequences, a model's own window) needs a softmax.
    """
    if mask_B1TS is None:
        return made.attend(q_BHTD, k_BHSD, v_BHSD)
    queries, keys = q_BHTD.shape[2], k_BHSD.shape[2]
    if mask_B1TS.dtype != torch.bool and bool(((mask_B1TS != 0) & (mask_B1TS > MASKED)).any()):
        raise InputError(
            "an attention mask with biases (as ALiBi's) that are neither 0 nor −∞",
            expected="a mask that only lets through or hides",
            cure="leave this model its own attention",
        )
    seen_BTS = (mask_B1TS if mask_B1TS.dtype == torch.bool else mask_B1TS >= 0).expand(len(q_BHTD), 1, -1, -1)[:, 0]
    # A key is real if any query sees it: by the last query alone, an earlier packed sequence would pass for padding.
    real_BS = seen_BTS[..., :keys].any(1)
    filled = int(real_BS.any(0).nonzero().max()) + 1  # beyond it a preallocated cache is empty
    real_BS, past = real_BS[:, :filled], filled - queries
    expected = real_BS.unsqueeze(1).expand(-1, queries, -1)
    if made.causal:
        expected = expected & lower_right_mask(queries, filled, q_BHTD.device)
    real_BT = real_BS[:, max(past, 0) :]
    if past < 0 or not bool(((seen_BTS[..., :filled] == expected) | ~real_BT.unsqueeze(2)).all()):
        return _masked(made, q_BHTD, k_BHSD, v_BHSD, seen_BTS[..., :keys])
    y_BHTD = torch.zeros_like(q_BHTD)
    for row in range(len(q_BHTD)):
        ours_S, ours_T = real_BS[row].nonzero()[:, 0], real_BT[row].nonzero()[:, 0]
        if len(ours_T):
            q, k, v = (x[row : row + 1, :, at] for x, at in ((q_BHTD, ours_T), (k_BHSD, ours_S), (v_BHSD, ours_S)))
            y_BHTD[row, :, ours_T] = made.attend(q, k, v)[0]
    return y_BHTD


def _masked(made: Projected, q: Tensor, k: Tensor, v: Tensor, seen_BTS: Tensor) -> Tensor:
    name = type(made).__name__
    if name not in ("Eager", "Sdpa"):
        raise InputError(
            f"a mask that is neither causal nor padding, with {name}",
            expected="whole sequences, padded left or right",
            cure="pass sequences one per row instead of packed, or use deadweight_sdpa",
        )
    return F.scaled_dot_product_attention(q, k, v, seen_BTS.unsqueeze(1))
