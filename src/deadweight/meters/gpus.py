"""The energy counters of GPUs and of whole chips, found through zeus."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from deadweight.meters.devices import EnergyDevice, NullEnergy
from deadweight.meters.reading import Provenance

CHIP_PARTS = {  # field of zeus' measurement -> what it covers; parts of parts are left out
    "cpu_total_mj": "cpu", "dram_mj": "dram", "gpu_mj": "gpu", "ane_mj": "neural engine",
}  # fmt: skip

SLICED = "MIG is on: the counter is of the whole board, all its slices together"


@dataclass(frozen=True)
class GpuEnergy:
    """One GPU, whatever process uses it: its counter, or (provenance ``integrated``) its sampled power."""

    name: str
    gpu: Any
    provenance: Provenance = "measured"
    modulus: float | None = None
    shortest: float = 1.0  # the drivers refresh counter and power every 20 to 100 milliseconds
    reason: str = ""
    cure: str = ""
    scope: str = "the whole board with its memory, whatever process uses it"

    def joules(self) -> float | None:
        from zeus.device.exception import ZeusBaseGPUError

        if self.provenance == "integrated":
            return None
        try:
            return float(self.gpu.get_total_energy_consumption()) / 1e3
        except (ZeusBaseGPUError, OSError):
            return None

    def power(self) -> float | None:
        from zeus.device.exception import ZeusBaseGPUError

        try:
            return float(self.gpu.get_instant_power_usage()) / 1e3
        except (ZeusBaseGPUError, OSError, AttributeError):  # not every vendor's driver tells it
            return None


def gpu_devices() -> list[EnergyDevice]:
    """The GPUs this process may see (``CUDA_VISIBLE_DEVICES``), each once, in the order of their index."""
    from zeus.device.exception import ZeusBaseGPUError
    from zeus.device.gpu import get_gpus

    try:
        gpus = list(get_gpus().gpus)
    except (ZeusBaseGPUError, ImportError) as error:
        return [
            NullEnergy(
                "gpu",
                f"no GPU counter: {error}",
                "nothing to do without a GPU; with one, install its driver and nvidia-ml-py or amdsmi",
            )
        ]
    except ValueError as error:  # zeus reads CUDA_VISIBLE_DEVICES as numbers only
        return [NullEnergy("gpu", f"CUDA_VISIBLE_DEVICES was not understood: {error}", "name the GPUs by number")]
    once = {getattr(gpu, "gpu_index", place): (place, gpu) for place, gpu in reversed(list(enumerate(gpus)))}
    return [_gpu(place, gpu) for place, gpu in sorted(once.values(), key=lambda one: one[0])]


def _gpu(index: int, gpu: Any) -> EnergyDevice:
    name = f"gpu {index}"
    if gpu.supports_get_total_energy_consumption():
        return GpuEnergy(name, gpu, reason=SLICED if _sliced(gpu) else "")
    sampled = GpuEnergy(
        name, gpu, "integrated", reason=f"{gpu.get_name()} has no energy counter: its power is sampled", shortest=2.0
    )
    if sampled.power() is not None:
        return sampled
    return NullEnergy(
        name,
        f"{gpu.get_name()} has no energy counter (NVIDIA: Volta and later have one) and tells no power",
        "measure on a newer GPU, or give a power model",
    )


def _sliced(gpu: Any) -> bool:
    """Whether an NVIDIA board is cut into slices (MIG)."""
    handle = getattr(gpu, "handle", None)
    if handle is None:  # another vendor's
        return False
    import pynvml

    try:
        return bool(pynvml.nvmlDeviceGetMigMode(handle)[0] == pynvml.NVML_DEVICE_MIG_ENABLE)
    except pynvml.NVMLError:  # boards that cannot be sliced refuse the question
        return False


@dataclass(frozen=True)
class ChipEnergy:
    """A part of an Apple or Jetson chip."""

    name: str
    soc: Any
    part: str
    scope: str
    provenance: Provenance
    modulus: float | None = None
    shortest: float = 1.0
    reason: str = ""
    cure: str = ""

    def joules(self) -> float | None:
        from zeus.device.exception import ZeusBaseSoCError

        with suppress(ZeusBaseSoCError, OSError, TypeError):
            return float(getattr(self.soc.get_total_energy_consumption(), self.part)) / 1e3
        return None


def chip_devices() -> list[EnergyDevice]:
    """The parts of an Apple chip (counters) or a Jetson board (zeus integrates its power); none elsewhere."""
    from zeus.device.exception import ZeusBaseSoCError
    from zeus.device.soc import get_soc

    try:
        soc = get_soc()
        now = soc.get_total_energy_consumption()
    except (ZeusBaseSoCError, OSError):
        return []
    if getattr(now, "total_energy_mj", None) is not None:
        why = "zeus integrates the board's power"
        return [ChipEnergy("board", soc, "total_energy_mj", "the whole board", "integrated", reason=why)]
    return [
        ChipEnergy(f"chip {name}", soc, part, f"the {name} of the chip, whatever process uses it", "measured")
        for part, name in CHIP_PARTS.items()
        if getattr(now, part, None) is not None
    ]
