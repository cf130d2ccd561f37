"""Which operations of PyTorch multiply, by what, and which are known not to.

Whatever is in neither table is named by :class:`~deadweight.meters.products.Products`: a count is never silently low.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


def _by_columns(left: Tensor, right: Tensor) -> int:
    return left.numel() * (right.shape[-1] if right.dim() > 1 else 1)


def _by_rows(left: Tensor, right: Tensor) -> int:
    """The weight lies as a linear layer stores it, [out, in]."""
    return left.numel() * right.shape[0]


def _grouped(left: Tensor, right: Tensor) -> int:
    """Every row meets the matrix of its own group; with groups among the columns, every column one."""
    rows = left[0].numel() if left.dim() == 3 and right.dim() == 2 else left.numel()
    return rows * right.shape[-1]


# operation -> positions of its two operands, and their multiply-accumulates
MATRICES: Mapping[str, tuple[int, int, Callable[[Tensor, Tensor], int]]] = {
    **{f"aten::{name}": (0, 1, _by_columns) for name in ("mm", "bmm", "mv", "dot", "vdot", "_int_mm", "_scaled_mm")},
    **{
        f"aten::{name}{ending}": (1, 2, _by_columns)
        for name in ("addmm", "baddbmm", "addmv", "addbmm")
        for ending in ("", "_")
    },
    "aten::_addmm_activation": (1, 2, _by_columns),
    "aten::_grouped_mm": (0, 1, _grouped),
    "aten::_scaled_grouped_mm": (0, 1, _grouped),
    "transformers::grouped_mm_fallback": (0, 1, _grouped),
    "aten::linear": (0, 1, _by_rows),
    "aten::_weight_int8pack_mm": (0, 1, _by_rows),
    "aten::_trilinear": (0, 1, lambda left, weight: left.numel() // left.shape[-1] * weight.numel()),
}
FUSED = frozenset(
    f"aten::_scaled_dot_product_{kernel}"
    for kernel in (
        "flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention",
        "fused_attention_overrideable",
    )
)  # fmt: skip
CONVOLUTIONS = frozenset(f"aten::{name}" for name in ("convolution", "_convolution", "convolution_overrideable"))
RECURRENT = frozenset(f"aten::{name}" for name in ("mkldnn_rnn_layer", "_cudnn_rnn", "miopen_rnn"))


def operation_name(func: Any) -> str:
    """``namespace::name`` of an operation, its overload left out.

    >>> operation_name(torch.ops.aten.add.Tensor)
    'aten::add'
    """
    packet = getattr(func, "overloadpacket", None)
    return str(func) if packet is None else str(packet._qualified_op_name)


def convolution(args: tuple[Any, ...]) -> int:
    """MACs of ``aten.convolution(x, weight, bias, stride, padding, dilation, transposed, output_padding, groups)``."""
    x, weight, _, stride, padding, dilation, transposed = args[:7]
    if transposed:
        return int(x.numel() * weight[0].numel())
    extents = zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    places = math.prod((size + 2 * pad - wide * (kern - 1) - 1) // step + 1 for size, kern, step, pad, wide in extents)
    return int(x.shape[0] * places * weight.numel())


def substitution(args: tuple[Any, ...]) -> int:
    """MACs of ``aten.linalg_solve_triangular(A, B)``, A [..., n, n] and B [..., n, k]: n (n - 1) / 2 per column of B.

    >>> substitution((torch.eye(4), torch.ones(4, 3)))
    18
    """
    system, right = args[:2]
    return int(right.numel() * (system.shape[-1] - 1) // 2)


def recurrent(args: tuple[Any, ...]) -> int:
    """MACs of a recurrent layer in one operation: every step multiplies each of its matrices once."""
    x = args[0]
    weights = args[1] if isinstance(args[1], list | tuple) else args[1:5]
    rows = int(x.numel() // x.shape[-1])
    return rows * sum(int(w.numel()) for w in weights if isinstance(w, Tensor) and w.dim() == 2)


def quantised(func: Any, args: tuple[Any, ...]) -> int | None:
    """MACs of a linear layer or convolution over a packed weight; None for another operation.

    >>> quantised(torch.ops.aten.relu.default, (torch.zeros(2),)) is None
    True
    """
    if func.namespace != "quantized" or len(args) < 2 or not hasattr(args[1], "unpack"):
        return None
    x, (weight, *_) = args[0], args[1].unpack()
    name = func.overloadpacket.__name__
    if name.startswith("linear"):
        return int(x.numel() * weight.shape[0])
    if name.startswith("conv_transpose"):
        return int(x.numel() * weight[0].numel())
    if name.startswith("conv"):
        packed = args[1]
        geometry = (packed.stride(), packed.padding(), packed.dilation())
        return convolution((x, weight, None, *geometry, False))
    return None


def packed_numbers(module: Any) -> int:
    """How many weights and biases a module of PyTorch's quantisation holds, which are no parameters there.

    >>> packed_numbers(torch.nn.Linear(2, 2))
    0
    """
    if type(module).__module__.startswith("torch.ao.nn"):
        if hasattr(module, "_weight_bias") and "Packed" in type(module).__name__:
            return sum(int(one.numel()) for one in module._weight_bias() if one is not None)
        if hasattr(module, "param") and hasattr(module.param, "unpack"):  # a gate of a recurrent layer
            return sum(int(one.numel()) for one in module.param.unpack() if isinstance(one, Tensor))
    return 0


def multiplies_nothing(func: Any) -> bool:
    """Whether an operation is known to be elementwise, a view, a reduction, a copy or a lookup.

    >>> multiplies_nothing(torch.ops.aten.relu.default), multiplies_nothing(torch.ops.aten.mm.default)
    (True, False)
    """
    if getattr(func, "namespace", None) not in ("aten", "prims", "prim", "profiler"):
        return False
    tags = func.tags
    if torch.Tag.pointwise in tags or torch.Tag.reduction in tags or getattr(func, "is_view", False):
        return True
    name = func.overloadpacket.__name__.strip("_")
    return name.removesuffix("_copy") in _PLAIN or name.startswith(_PLAIN_BEGINNINGS)


_PLAIN_BEGINNINGS = (
    "adaptive_avg_pool", "adaptive_max_pool", "assert", "avg_pool", "batch_norm", "fake_quantize", "functional_",
    "index", "local_scalar", "log_softmax", "masked_", "max_pool", "max_unpool", "native_batch_norm", "nested_",
    "new_", "pad_", "quantize_per", "rand", "reflection_pad", "replication_pad", "resize", "scatter", "slice",
    "softmax", "split", "squeeze", "thnn_fused", "to_", "tri", "unique", "unsafe_", "unsqueeze", "upsample",
)  # fmt: skip
_PLAIN_NAMES = """
    abs add add_relu alias all amax amin aminmax any arange argmax argmin as_strided as_strided_scatter
    bernoulli bincount bitwise_and bitwise_or block_diag bucketize cat celu channel_shuffle clone col2im complex
    constant_pad_nd conj conj_physical copy count_nonzero cummax cummin cumprod cumsum dequantize detach
    diag_embed diagonal diagonal_scatter div elu embedding embedding_renorm empty empty_like empty_permuted
    empty_strided equal exponential eye fill flip floor_divide from_file full full_like gather gelu glu
    grid_sampler_2d grid_sampler_3d hann_window hamming_window hardshrink hardsigmoid hardswish hardtanh histc
    im2col int_repr is_all_true is_any_true is_nonzero isin isinf isnan item kthvalue leaky_relu lift lift_fresh
    linalg_cross linalg_vector_norm linspace log_normal log_sigmoid_forward logcumsumexp logspace logsumexp max
    mean median min mish mode mul multinomial nan_to_num nansum native_dropout native_group_norm
    native_layer_norm nonzero nonzero_static norm normal ones ones_like pack_padded_sequence pad_packed_sequence
    permute pin_memory pixel_shuffle pixel_unshuffle poisson polar prelu_kernel prod put relu remainder renorm
    repeat repeat_interleave reshape reshape_alias roll rot90 rrelu_with_noise rsub safe_softmax scalar_tensor
    searchsorted segment_reduce select select_scatter set sigmoid softplus softshrink sort stack std std_mean
    sub sum sym_size sym_stride sym_numel sym_storage_offset t take tanh tensor threshold topk trace
    transform_bias_rescale_qkv transpose unbind unfold uniform values var var_mean view view_as_complex
    view_as_real weight_norm_interface where zero zeros zeros_like fused_rms_norm rms_norm layer_norm
    is_same_size fused_dropout size stride numel storage_offset is_contiguous is_strides_like_format fw_primal
    make_dual record_function_enter_new record_function_exit
"""
_PLAIN = frozenset(_PLAIN_NAMES.split())
