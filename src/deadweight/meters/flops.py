"""`count(model, inputs)`: parameters and multiply-accumulates of one forward pass, whichever kernels run.

The pass runs on the meta device, where shapes are computed and numbers are not, so that counting a model of any
size costs neither its memory nor its time; a model that looks at its own numbers on the way is run for real.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from deadweight.anatomy import anatomy
from deadweight.errors import InputError
from deadweight.meters.operations import packed_numbers
from deadweight.meters.products import Products
from deadweight.models.meta import on_meta
from deadweight.models.unwrap import unwrapped
from deadweight.notebook import table_html

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Counts:
    """What a model holds and what one forward pass of the given inputs does. MACs are multiply-accumulates.

    parameters:          unique, in numbers.
    executed_parameters: summed over module calls, so that a shared module counts once per call.
    active_parameters:   the same, and of a bank of experts as many as the router sends one token to.
    unique_mlps:         distinct MLPs by the weight that writes back; None where no adapter knows the parts.
    macs_linear:         products with weights: linear, convolution and recurrent layers, experts.
    necessary:           attention products (activation by activation) over unmasked query-key pairs.
    executed:            what the attention products do as called: a dense mask is multiplied through and thrown
                         away, a fused causal kernel skips the pairs above the diagonal (up to its block's edge).
    uncounted:           names of operations that ran and that may multiply in a way not known here: the numbers are
                         then lower bounds, and a warning says so.

    Norms, softmax and other elementwise work is not counted. Weights that are packed by quantisation count as the
    numbers they stand for.

    >>> import deadweight as dw, torch
    >>> counts = dw.count(torch.nn.Linear(8, 4), torch.zeros(10, 8))
    >>> counts.parameters, counts.macs_linear, counts.macs
    (36, 320, 320)
    """

    parameters: int
    executed_parameters: int
    unique_mlps: int | None
    macs_linear: int
    necessary: int
    executed: int
    active_parameters: int = 0
    uncounted: tuple[str, ...] = ()

    @property
    def macs_attention(self) -> int:
        """The necessary ones, which do not depend on the kernel."""
        return self.necessary

    @property
    def macs(self) -> int:
        return self.macs_linear + self.macs_attention

    def _repr_html_(self) -> str:
        rows = [(name.replace("_", " "), value) for name, value in self.as_json().items()]
        rows += [(f"not counted: {name}", None) for name in self.uncounted]
        return table_html("Counts", ["", "number"], rows)

    def as_json(self) -> dict[str, int | None]:
        return {
            "parameters": self.parameters,
            "executed_parameters": self.executed_parameters,
            "active_parameters": self.active_parameters,
            "unique_mlps": self.unique_mlps,
            "macs": self.macs,
            "macs_linear": self.macs_linear,
            "macs_attention": self.macs_attention,
            "attention_necessary": self.necessary,
            "attention_executed": self.executed,
        }


def count(model: nn.Module, inputs: Tensor | Mapping[str, Any] | tuple[Any, ...] | list[Any]) -> Counts:
    """Count `model` on `inputs`: a tensor, positional inputs as a tuple, or keyword inputs as a dict.

    The model is left as it was. Raises :class:`InputError` when it does not take the inputs.

    >>> count(nn.Linear(8, 4, bias=False), torch.zeros(10, 8)).macs
    320
    """
    args, kwargs = _arguments(inputs)
    try:
        products, executed, idle = _run(on_meta(model), _floats_to_meta(args), _floats_to_meta(kwargs), meta=True)
    except Exception:  # whatever a model does with a number that is not there; the run for real judges it
        products, executed, idle = _run_for_real(model, args, kwargs)
    uncounted = tuple(sorted(products.uncounted))
    if uncounted:
        warnings.warn(
            f"{type(model).__name__} runs operations that are not counted: {', '.join(uncounted)}; "
            "the counts are lower bounds",
            stacklevel=2,
        )
    return Counts(
        parameters=sum(p.numel() for p in model.parameters()) + sum(map(packed_numbers, model.modules())),
        executed_parameters=executed,
        unique_mlps=_unique_mlps(model),
        macs_linear=products.linear,
        necessary=products.necessary,
        executed=products.executed,
        active_parameters=executed - idle,
        uncounted=uncounted,
    )


def _arguments(inputs: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    if isinstance(inputs, tuple | list):
        return tuple(inputs), {}
    raise InputError(
        f"inputs of type {type(inputs).__name__}",
        expected="a tensor, a tuple of positional or a dict of keyword inputs",
        cure="pass what the model's forward takes",
    )


def _floats_to_meta(values: Any) -> Any:
    return tree_map_only(Tensor, lambda t: t.to("meta" if t.is_floating_point() else "cpu"), values)


def _run_for_real(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Products, int, int]:
    try:
        return _run(model, args, kwargs, meta=False)
    except Exception as error:
        raise InputError(
            f"{type(model).__name__} could not run on the inputs: {error}",
            expected="inputs its forward takes",
            cure="pass the inputs as the model is called: a tensor, a tuple, or a dict of keywords",
        ) from error


def _run(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, meta: bool) -> tuple[Products, int, int]:
    """The products, the executed parameters, and how many of these are of experts that one token does not reach."""
    calls: Counter[nn.Module] = Counter()

    idle = 0

    def note(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        nonlocal idle
        calls[module] += 1
        idle += _idle_experts(module, (*inputs, *named.values()))

    hooks = [module.register_forward_pre_hook(note, with_kwargs=True) for module in model.modules()]
    products = Products(model.parameters(), model.buffers(), meta=meta)
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one fused operation would hide all products of an encoder
    try:
        with _evaluating(model), torch.no_grad(), products:
            model(*args, **kwargs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for hook in hooks:
            hook.remove()
    return products, _executed_parameters(model, calls, products), idle


def _idle_experts(module: nn.Module, inputs: tuple[Any, ...]) -> int:
    """Parameters of the experts in a bank that one token is not sent to: [experts, …] each, called with the numbers of
    the experts of every token, [tokens, experts per token]."""
    experts = getattr(module, "num_experts", None)
    chosen = [t for t in inputs if isinstance(t, Tensor) and t.dim() == 2 and not t.is_floating_point()]
    banks = [p for p in module.parameters(recurse=False) if p.dim() >= 2 and p.shape[0] == experts]
    if not isinstance(experts, int) or not banks or not chosen:
        return 0
    return sum(p.numel() // experts for p in banks) * (experts - chosen[0].shape[1])


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _executed_parameters(model: nn.Module, calls: Counter[nn.Module], products: Products) -> int:
    """Own parameters of each module times its calls.

    A module that is never called may still be used by the one that holds it (``out_proj`` of
    ``nn.MultiheadAttention``): what of it was touched counts once a call of the nearest called ancestor.
    """
    total, seen = 0, set()
    for path, module in model.named_modules(remove_duplicate=False):
        own = list(module.parameters(recurse=False))
        if packed := packed_numbers(module):
            total += packed * max(1, _calls_above(model, path, calls))
        if not own or id(module) in seen:
            continue
        if calls[module]:
            seen.add(id(module))
            total += calls[module] * sum(p.numel() for p in own)
        else:
            times = _calls_above(model, path, calls)
            total += times * sum(p.numel() for p in own if products.touched(p))
    return total


def _calls_above(model: nn.Module, path: str, calls: Counter[nn.Module]) -> int:
    while path:
        path = path.rpartition(".")[0]
        above = model.get_submodule(path)
        if calls[above]:
            return calls[above]
    return 0


def _unique_mlps(model: nn.Module) -> int | None:
    model = unwrapped(model)
    try:
        blocks = anatomy(model).blocks
    except InputError:
        return None
    downs = [model.get_submodule(b.mlp_paths.down).weight for b in blocks if b.mlp_paths is not None]
    return len({id(weight) for weight in downs})
