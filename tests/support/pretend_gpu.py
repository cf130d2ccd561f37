"""Tensors that compute on the CPU and say that they lie on a GPU: what mixes devices fails here as it would there.

Under :class:`PretendGpu` whatever is made on or moved to ``cuda`` is a :class:`Far` tensor; an operation that takes one
of them and a CPU's tensor of any dimension is refused, as is reading one without bringing it back. Without gradients.
Only for a process of its own: PyTorch is told that its driver is there.
"""

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("cuda", 0)
MOVES = (torch.ops.aten.copy_, torch.ops.aten._to_copy, torch.ops.aten.to)
INDEXING = (torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_)


class Far(torch.Tensor):
    @staticmethod
    def __new__(cls, near):
        return torch.Tensor._make_wrapper_subclass(
            cls, near.size(), strides=near.stride(), storage_offset=near.storage_offset(), dtype=near.dtype,
            device="meta", requires_grad=False,
        )  # fmt: skip  # for PyTorch's own code: it asks no driver about that device

    def __init__(self, near):
        self.near = near

    device, is_cuda, is_meta, is_cpu = DEVICE, True, False, False

    def tolist(self):
        return self.near.tolist()

    def data_ptr(self):
        return self.near.data_ptr()

    def __repr__(self):
        return f"Far({self.near!r})"

    def __deepcopy__(self, memo):
        new = Far(self.near.clone())
        return torch.nn.Parameter(new, self.requires_grad) if isinstance(self, torch.nn.Parameter) else new

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is F.scaled_dot_product_attention:
            return attention(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return dispatched(func, args, kwargs or {})


class PretendGpu(TorchDispatchMode):
    """Catches what is made on the GPU out of nothing, or moved there."""

    def __enter__(self):
        torch.cuda._lazy_init = lambda: None
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…, device=…) makes it here and then moves it
        torch.cuda.synchronize = torch.accelerator.synchronize = lambda *device: None
        torch._fused_sdp_choice = lambda *given, **more: 1
        torch.inference_mode.__enter__, torch.inference_mode.__exit__ = _enter, _exit
        return super().__enter__()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return dispatched(func, args, kwargs or {})


def checked(what, tensors):
    far = [x for x in tensors if isinstance(x, Far)]
    if far and any(x.dim() for x in tensors if not isinstance(x, Far)):
        raise RuntimeError(f"{what}: tensors on {DEVICE} and on the CPU")
    return far


def attention(*given, **more):
    """PyTorch chooses its kernel before anybody can step in."""
    far = checked("attention", [x for x in (*given, *more.values()) if isinstance(x, torch.Tensor)])
    y = F.scaled_dot_product_attention(*map(_near, given), **{name: _near(x) for name, x in more.items()})
    return Far(y) if far else y


def dispatched(func, args, kwargs):
    leaves = tree_flatten((args, kwargs))[0]
    tensors = [x for x in leaves if isinstance(x, torch.Tensor)]
    far = [x for x in tensors if isinstance(x, Far)]
    if func is torch.ops.aten._local_scalar_dense.default:
        return args[0].near.item() if far else func(*args, **kwargs)  # .item() waits for the device, and may
    if func.overloadpacket in INDEXING and isinstance(args[0], Far):  # by indices of either device
        checked(func, [args[0], *(x for x in args[2:] if isinstance(x, torch.Tensor))])
    elif func.overloadpacket not in MOVES:
        checked(func, tensors)
    places = [x for x in leaves if isinstance(x, torch.device)]
    target = places[0].type in (DEVICE.type, "meta") if places else bool(far)
    if func.overloadpacket is torch.ops.aten.copy_:
        target = isinstance(args[0], Far)
    inner = {name: x for name, x in kwargs.items() if name != "pin_memory"}
    result = func(*tree_map(_near, args), **tree_map(_near, inner))
    known = {id(x.near): x for x in far}

    def back(x):
        if not isinstance(x, torch.Tensor):
            return x
        return known[id(x)] if id(x) in known else Far(x) if target else x

    return tree_map(back, result)


def _near(x):
    if isinstance(x, torch.device):
        return torch.device("cpu") if x.type in (DEVICE.type, "meta") else x
    return x.near if isinstance(x, Far) else x


def moved(model):
    """The model with its weights on the GPU."""
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                module._parameters[name] = torch.nn.Parameter(weight.detach().to(DEVICE), requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to(DEVICE)
    return model


def _enter(self):
    """Without gradients is enough: inference's own tensors cannot be wrapped."""
    self.before = torch.is_grad_enabled()
    torch.set_grad_enabled(False)


def _exit(self, *problem):
    torch.set_grad_enabled(self.before)
