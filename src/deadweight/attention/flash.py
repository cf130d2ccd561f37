"""The flash kernel, pinned: where the machine has none, an error and never another kernel in its name."""

from __future__ import annotations

import warnings
from typing import ClassVar

from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from deadweight.attention.sdpa import Sdpa, fused_attention
from deadweight.errors import MachineError


class Flash(Sdpa):
    """PyTorch's flash kernel and no other: T² time, T memory.

    Calls raise :class:`MachineError` where there is none for the device, dtype or head width.
    """

    label: ClassVar[str] = "the flash kernel"

    def attend(self, q_BHTD: Tensor, k_BGSD: Tensor, v_BGSD: Tensor) -> Tensor:
        try:
            # Each reason for a refusal comes as a warning of its own before the error that we translate.
            with warnings.catch_warnings(), sdpa_kernel(SDPBackend.FLASH_ATTENTION):
                warnings.simplefilter("ignore")
                y_BHTD, kernel = fused_attention(q_BHTD, k_BGSD, v_BGSD, causal=self.causal)
        except RuntimeError as problem:
            if "No available kernel" not in str(problem):
                raise
            raise _missing(q_BHTD) from None
        if kernel not in ("sdpa:flash", "sdpa:meta"):
            raise _missing(q_BHTD)
        self.kernel = kernel
        return y_BHTD


def _missing(q_BHTD: Tensor) -> MachineError:
    return MachineError(
        f"no flash attention kernel for {q_BHTD.dtype} on {q_BHTD.device.type}, heads {q_BHTD.shape[-1]} wide",
        expected="a device, dtype and head width PyTorch has a flash kernel for",
        cure="use bfloat16 on CUDA, or the mechanism sdpa, which takes the best kernel there is",
    )
