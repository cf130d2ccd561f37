"""`count(model, inputs)`: parameters and multiply-accumulates of one forward pass, whichever kernels run.

The pass runs on the meta device, where shapes are computed and numbers are not, so that counting a model of any
size costs neither its memory nor its time; a model that looks at its own numbers on the way is run for real.
"""

from __future__ import annotations

import copy
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
from deadweight.meters.products import Products
from deadweight.models.unwrap import unwrapped
from deadweight.notebook import table_html

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Counts:
    """What a model holds and what one forward pass of the given inputs does. MACs are multiply-accumulates.

    parameters:          unique, in numbers.
    executed_parameters: summed over module calls, so that a shared module counts once a call.
    unique_mlps:         distinct MLPs by the weight that writes back; None where no adapter knows the parts.
    macs_linear:         products with a parameter: linear and convolution layers.
    necessary:           attention products (activation by activation) over unmasked query-key pairs.
    executed:            what the attention products do as called: a dense mask is multiplied through and thrown
                         away, a fused causal kernel skips the pairs above the diagonal (up to its block's edge).

    Norms, softmax and other elementwise work is not counted.

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

    @property
    def macs_attention(self) -> int:
        """The necessary ones, which do not depend on the kernel."""
        return self.necessary

    @property
    def macs(self) -> int:
        return self.macs_linear + self.macs_attention

    def _repr_html_(self) -> str:
        rows = [(name.replace("_", " "), value) for name, value in self.as_json().items()]
        return table_html("Counts", ["", "number"], rows)

    def as_json(self) -> dict[str, int | None]:
        return {
            "parameters": self.parameters,
            "executed_parameters": self.executed_parameters,
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
        products, executed = _run(_on_meta(model), _floats_to_meta(args), _floats_to_meta(kwargs), meta=True)
    except Exception:  # whatever a model does with a number that is not there; the run for real judges it
        products, executed = _run_for_real(model, args, kwargs)
    return Counts(
        parameters=sum(p.numel() for p in model.parameters()),
        executed_parameters=executed,
        unique_mlps=_unique_mlps(model),
        macs_linear=products.linear,
        necessary=products.necessary,
        executed=products.executed,
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


def _on_meta(model: nn.Module) -> nn.Module:
    """A copy that shares what the model shares and holds no numbers: the originals are never copied."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
    for buffer in model.buffers():
        if buffer.is_floating_point():  # whole numbers and masks steer the pass: they keep their values
            memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(model, memo)


def _floats_to_meta(values: Any) -> Any:
    return tree_map_only(Tensor, lambda t: t.to("meta" if t.is_floating_point() else "cpu"), values)


def _run_for_real(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Products, int]:
    try:
        return _run(model, args, kwargs, meta=False)
    except Exception as error:
        raise InputError(
            f"{type(model).__name__} could not run on the inputs: {error}",
            expected="inputs its forward takes",
            cure="pass the inputs as the model is called: a tensor, a tuple, or a dict of keywords",
        ) from error


def _run(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, meta: bool) -> tuple[Products, int]:
    calls: Counter[nn.Module] = Counter()

    def note(module: nn.Module, _: object) -> None:
        calls[module] += 1

    hooks = [module.register_forward_pre_hook(note) for module in model.modules()]
    products = Products(list(model.parameters()), meta=meta)
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one fused operation would hide all products of an encoder
    try:
        with _evaluating(model), torch.no_grad(), products:
            model(*args, **kwargs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for hook in hooks:
            hook.remove()
    return products, _executed_parameters(model, calls, products)


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
