"""NVML as a dictionary of boards, under zeus' own classes: counters, power and slices of boards that are not there."""

import time
from types import SimpleNamespace

import pynvml
import zeus.device.gpu

VOLTA, PASCAL = pynvml.NVML_DEVICE_ARCH_VOLTA, pynvml.NVML_DEVICE_ARCH_PASCAL


def board(name, arch=VOLTA, *, uuid="", mig=None):
    """arch: boards before Volta have no counter. mig: None where the board cannot be sliced, else whether it is."""
    return SimpleNamespace(name=name, arch=arch, uuid=uuid, mig=mig)


def install(monkeypatch, *boards):
    """Put the boards in; the state that comes back says what they draw (`watts`) and count (`counted`), both in W."""
    there = dict(enumerate(boards))
    began = time.perf_counter()
    state = SimpleNamespace(boards=there, watts=200.0, counted=200.0)

    def power(handle, fields):
        assert fields[0][0] == pynvml.NVML_FI_DEV_POWER_INSTANT
        code = pynvml.NVML_ERROR_NOT_SUPPORTED if state.watts is None else pynvml.NVML_SUCCESS
        return [SimpleNamespace(nvmlReturn=code, value=SimpleNamespace(uiVal=int(1e3 * (state.watts or 0))))]

    def counter(handle):
        if handle.arch < VOLTA:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return int(1e3 * state.counted * (time.perf_counter() - began))

    def mig(handle):
        if handle.mig is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [int(handle.mig), int(handle.mig)]

    def refused(handle):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    calls = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlSystemGetDriverVersion": lambda: "580.0",
        "nvmlDeviceGetCount": lambda: len(there),
        "nvmlDeviceGetHandleByIndex": there.__getitem__,
        "nvmlDeviceGetArchitecture": lambda handle: handle.arch,
        "nvmlDeviceGetName": lambda handle: handle.name,
        "nvmlDeviceGetUUID": lambda handle: handle.uuid,
        "nvmlDeviceGetMigMode": mig,
        "nvmlDeviceGetFieldValues": power,
        "nvmlDeviceGetTotalEnergyConsumption": counter,
        "nvmlDeviceGetC2cModeInfoV": refused,  # no Grace Hopper
    }
    for name, call in calls.items():
        monkeypatch.setattr(pynvml, name, call)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(zeus.device.gpu, "_gpus", None)
    monkeypatch.setattr(zeus.device.gpu, "nvml_is_available", lambda: True)
    return state
