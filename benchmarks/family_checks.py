"""Each verb on one tiny model, held against a computation that knows nothing of deadweight.

A check returns how far it is from the truth; it raises what deadweight raises. `CHECKS` lists the verbs.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import deadweight as dw
from deadweight.errors import DeadweightError
from deadweight.prompting.encoding import Query
from deadweight.prompting.scorer import token_scores

CLOSE = 1e-3  # of logits and log-probabilities whose spread is about 0.1 to 2
Word = Literal["right", "refused", "wrong", "n/a"]


@dataclass(frozen=True)
class Found:
    word: Word
    why: str = ""


class NotApplicable(Exception):
    """There is nothing to hold the verb against."""


def inputs_of(kind: str) -> dict[str, Tensor]:
    if kind == "causal_lm":
        return {"input_ids": torch.arange(3, 27)[None]}
    return {"pixel_values": torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))}


def run(check: Callable[[Any, Mapping[str, Tensor]], float], model: nn.Module, inputs: Mapping[str, Tensor]) -> Found:
    """One cell of the table."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            off = check(model, inputs)
        except NotApplicable as reason:
            return Found("n/a", str(reason))
        except DeadweightError as refusal:
            return Found("refused", refusal.given.splitlines()[0])
        except Exception as problem:
            return Found("wrong", f"{type(problem).__name__}: {str(problem).splitlines()[0] if str(problem) else ''}")
    return Found("right") if off <= CLOSE else Found("wrong", f"off by {off:.1e}")


@torch.no_grad()
def logits(model: Any, inputs: Mapping[str, Tensor], **options: Any) -> Tensor:
    found: Tensor = model(**inputs, **options).logits
    return found


def apart(one: Tensor, two: Tensor) -> float:
    return float((one.double() - two.double()).abs().max()) if one.shape == two.shape else float("inf")


def counts(model: Any, inputs: Mapping[str, Tensor]) -> float:
    """All products, against PyTorch's counter, with attention and experts in plain matrix products."""
    model = copy.deepcopy(model)
    _plainly(model)
    with FlopCounterMode(display=False) as theirs, torch.no_grad():
        model(**inputs)
    ours = dw.count(model, dict(inputs))
    if ours.uncounted:
        return float("inf")
    # Substitution in triangular systems is ours alone; their counter leaves it out, and a fused kernel on a CPU too.
    left_out = {"linalg_solve_triangular", "_scaled_dot_product_flash_attention_for_cpu"} & _operations(model, inputs)
    total = theirs.get_total_flops() // 2
    if left_out:
        return (
            0.0 if ours.macs_linear <= total <= ours.macs_linear + ours.executed or ours.macs_linear == total else 1.0
        )
    return float(abs(ours.macs_linear + ours.executed - total))


def _plainly(model: Any) -> None:
    for choose in ("set_attn_implementation", "set_experts_implementation"):
        with suppress(Exception):  # it has no choice
            getattr(model, choose)("eager")


def _operations(model: Any, inputs: Mapping[str, Tensor]) -> set[str]:
    from torch.utils._python_dispatch import TorchDispatchMode

    seen: set[str] = set()

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its modes untyped
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.add(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), Watch():  # type: ignore[no-untyped-call]
        model(**inputs)
    return seen


def scores(model: Any, inputs: Mapping[str, Tensor]) -> float:
    """Prompts that share demonstrations, short and long, each against a plain pass of its own."""
    draw = torch.Generator().manual_seed(3)
    some = lambda n: tuple(torch.randint(3, 60, (n,), generator=draw).tolist())  # noqa: E731
    shared, asked = some(30), []
    for number, length in enumerate((3, 9, 20, 9, 14, 50)):
        body = shared + some(length)
        asked += [Query(number, n, (*body, *some(n + 1)), len(body)) for n in range(2)]
    asked += [Query(9, 0, (*some(6), 5), 6), Query(10, 0, (*some(100), 7), 100)]
    found, _ = token_scores(copy.deepcopy(model), asked)
    off = 0.0
    for query, scored in zip(asked, found, strict=True):
        logprobs = logits(model, {"input_ids": torch.tensor([query.tokens[:-1]])})[0].float().log_softmax(-1)
        rows = [logprobs[at - 1, query.tokens[at]] for at in range(query.start, len(query.tokens))]
        off = max(off, apart(torch.stack(rows), scored))
    return off


def profiles(model: Any, inputs: Mapping[str, Tensor]) -> float:
    """Mean cosine of pairs of tokens in every block's output, against the outputs themselves."""
    parts = dw.anatomy(model)
    outputs: list[Tensor] = []
    handles = [b.module.register_forward_hook(lambda _, args, out: outputs.append(_first(out))) for b in parts.blocks]
    logits(model, inputs)
    for handle in handles:
        handle.remove()
    table = dw.profile(model, [(dict(inputs),)], probes=["raw_similarity"]).table()["raw_similarity"]
    off = 0.0
    for row, tokens in enumerate(outputs, start=1):
        unit = nn.functional.normalize(tokens.flatten(1, -2)[:, parts.prefix_tokens :].double(), dim=-1)
        count = unit.shape[1]
        mean = ((unit @ unit.mT).sum((1, 2)) - count) / (count * (count - 1))
        off = max(off, abs(float(mean.mean()) - float(table.iloc[row])))
    return off


def drops(model: Any, inputs: Mapping[str, Tensor]) -> float:
    """Without its second block, against the original whose second block hands on what it is given."""
    short = dw.drop_blocks(model, [1])
    block = dw.anatomy(model).blocks[1].module

    def hand_on(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        given = args[0] if args else kwargs["hidden_states"]
        return (given, *output[1:]) if isinstance(output, tuple) else given

    handle = block.register_forward_hook(hand_on, with_kwargs=True)
    try:
        with _without_cache(model) as plain:
            expected = logits(model, inputs, **plain)
    except (IndexError, TypeError, KeyError) as problem:
        raise NotApplicable("the original cannot run with a block skipped") from problem
    finally:
        handle.remove()
    return apart(logits(short, inputs), expected)


@contextmanager
def _without_cache(model: Any) -> Iterator[dict[str, Any]]:
    import inspect

    yield {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}


def narrows(model: Any, inputs: Mapping[str, Tensor]) -> float:
    """Half as wide MLPs, against the original with the other half of the units silenced."""
    narrow = dw.shallow_mlps(model, 0.5)
    parts, handles = dw.anatomy(model), []
    for paths in (block.mlp_paths for block in parts.blocks):
        if paths is not None:
            silence = torch.arange(paths.hidden) < max(1, int(0.5 * paths.hidden + 0.5))
            handles.append(
                model.get_submodule(paths.down).register_forward_pre_hook(
                    lambda _, args, kept=silence: (args[0] * kept,)
                )
            )
    expected = logits(model, inputs)
    for handle in handles:
        handle.remove()
    if any(paths.inner for block in parts.blocks if (paths := block.mlp_paths) is not None):
        raise NotApplicable("a norm inside the MLP: silenced units would count in it")
    return apart(logits(narrow, inputs), expected)


def shares(model: Any, inputs: Mapping[str, Tensor]) -> float:
    """Neighbours that share an MLP, against the original with the first one's weights copied into the second."""
    shared = dw.group_mlps(model, 2)
    by_hand = copy.deepcopy(model)
    blocks = dw.anatomy(by_hand).blocks
    for one, two in zip(blocks[::2], blocks[1::2], strict=False):
        if one.mlp is not None and two.mlp is not None:
            two.mlp.load_state_dict(one.mlp.state_dict())
    return apart(logits(shared, inputs), logits(by_hand, inputs))


def saves(model: Any, inputs: Mapping[str, Tensor]) -> float:
    """A model without its last block, saved and loaded again, against itself."""
    short = dw.drop_blocks(model, [dw.anatomy(model).depth - 1])
    with tempfile.TemporaryDirectory() as folder:
        dw.save(short, Path(folder) / "short")
        back: Any = dw.load(f"file:{Path(folder) / 'short'}").eval()
    return apart(logits(back, inputs), logits(short, inputs))


def exits(model: Any, inputs: Mapping[str, Tensor]) -> float:
    """An early exit returns what its own readout says of the stream after two blocks and the final norm."""
    labels = torch.arange(len(inputs["pixel_values"])) % 2
    short: Any = dw.early_exit(model, 2, classes=3, batches=[(dict(inputs), labels)])
    parts, said = dw.anatomy(short), []
    handle = parts.head.register_forward_hook(lambda _, args, output: said.append(output))  # type: ignore[union-attr]
    returned = logits(short, inputs)
    handle.remove()
    if returned.shape != (len(labels), 3) or parts.depth != 2:
        return float("inf")
    return float((returned.argmax(1) != said[0].reshape(returned.shape).argmax(1)).sum())


def _first(output: Any) -> Tensor:
    while isinstance(output, tuple | list):
        output = output[0]
    found: Tensor = output
    return found


Check = Callable[[Any, Mapping[str, Tensor]], float]
CHECKS: dict[str, dict[str, Check]] = {
    "causal_lm": {
        "count": counts, "score_labels": scores, "profile": profiles, "drop_blocks": drops, "shallow_mlps": narrows,
        "group_mlps": shares, "save": saves,
    },
    "vision": {
        "count": counts, "profile": profiles, "drop_blocks": drops, "shallow_mlps": narrows, "group_mlps": shares,
        "early_exit": exits, "save": saves,
    },
}  # fmt: skip
