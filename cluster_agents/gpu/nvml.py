"""What NVML says of the GPUs of this machine, call by call. Calls block, and may never return where hardware is sick.

What the driver cannot tell counts as well; what it has told once (an Xid) is told once.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec
import pynvml

from federation.protocol.gpus import (
    EVENTS_TOLD_MAX,
    FAULTS_TOLD_MAX,
    GPUS_TOLD_MAX,
    INSTANCES_TOLD_MAX,
    MEMORY_MIB_MAX,
    PROFILE_CHARS_MAX,
    TEXT_CHARS_MAX,
    WHOLE_GPU,
    Gpu,
    GpuEvent,
    GpuFault,
    GpuInstance,
    GpuReading,
    xid,
)

APPLICATION_XIDS: Final = frozenset({13, 31, 43, 45, 68, 109})
"""A program's own fault, or what follows from it: the GPU is well. Those that NVIDIA's device plug-in leaves aside
(k8s-device-plugin, internal/rm/health.go)."""

NO_INSTANCE: Final = 0xFFFFFFFF  # of an event that is not of one instance
MIB: Final = 1 << 20
ALL_EVENTS: Final = pynvml.nvmlEventTypeXidCriticalError | pynvml.nvmlEventTypeDoubleBitEccError

_FAULTS: Final = {
    pynvml.NVML_ERROR_GPU_IS_LOST: GpuFault.LOST,
    pynvml.NVML_ERROR_RESET_REQUIRED: GpuFault.RESET_REQUIRED,
}
_PROFILE: Final = re.compile(r"MIG (\S+)$")


class NoGpusError(Exception):
    """There is nothing to read here; the message says why."""


class _Remapped(NamedTuple):
    corrected: int = 0
    uncorrected: int = 0
    pending: int = 0
    failed: int = 0


class Nvml:
    """NVML from its start on. NoGpusError where there is no library, no driver or no GPU."""

    def __init__(self) -> None:
        try:
            pynvml.nvmlInit()
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            raise NoGpusError(str(error)) from None
        if not count:
            raise NoGpusError("the driver knows no GPU")
        self._known: dict[int, Gpu] = {}  # by number, as read before it was lost
        self._uuids: dict[int | None, str] = {}  # by the address of its handle: one that is lost has no other name
        self._heard: list[GpuEvent] = []
        self._set: Any = None
        self._listened = 0
        self._listen(count)

    def _listen(self, count: int) -> None:
        """From now on events of all GPUs arrive that tell of any."""
        self._forget_set()
        self._listened = count
        try:
            self._set = pynvml.nvmlEventSetCreate()
        except pynvml.NVMLError:
            return
        for number in range(min(count, GPUS_TOLD_MAX)):
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(number)
                self._uuids[_address(handle)] = _text(pynvml.nvmlDeviceGetUUID(handle))
                told = pynvml.nvmlDeviceGetSupportedEventTypes(handle) & ALL_EVENTS
                pynvml.nvmlDeviceRegisterEvents(handle, told, self._set)
            except pynvml.NVMLError:
                continue  # it is too old to tell, or sick, which reading it says

    def _forget_set(self) -> None:
        if self._set is not None:
            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlEventSetFree(self._set)
        self._set = None

    # --- events -------------------------------------------------------------------------------------------------------

    @property
    def listens(self) -> bool:
        """Without, `wait` does not wait; the next reading tries again to listen."""
        return self._set is not None

    def wait(self, within_s: float) -> bool:
        """Until the driver tells of something, for so long at most; True when it is a fault."""
        if self._set is None:
            return False
        try:
            event = pynvml.nvmlEventSetWait(self._set, int(within_s * 1_000))
        except pynvml.NVMLError as error:
            if error.value != pynvml.NVML_ERROR_TIMEOUT:
                self._forget_set()  # reading says what is wrong
            return False
        fault = _fault_of(event)
        if fault is None:
            return False
        self._heard = [*self._heard, *self._told(event, fault)][:EVENTS_TOLD_MAX]
        return True

    def _told(self, event: Any, fault: str) -> list[GpuEvent]:
        """What is not told already: of one GPU or instance, or of all where nobody knows of which, as the plug-in."""
        uuid = self._uuids.get(_address(event.device))
        instance = event.gpuInstanceId if event.gpuInstanceId != NO_INSTANCE else WHOLE_GPU
        told = [GpuEvent(one, WHOLE_GPU, fault) for one in self._uuids.values()]
        if uuid is not None:
            told = [GpuEvent(uuid, instance, fault)]
        return [one for one in told if one not in self._heard]

    # --- readings -----------------------------------------------------------------------------------------------------

    def read(self) -> GpuReading:
        """All GPUs as they are now, and what was told since the last reading. NoGpusError once the driver is gone."""
        try:
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            raise NoGpusError(str(error)) from None
        if self._set is None or count != self._listened:
            self._listen(count)
        gpus = tuple(self._gpu(number) for number in range(min(count, GPUS_TOLD_MAX)))
        events, self._heard = tuple(self._heard), []
        return GpuReading(gpus, events)

    def _gpu(self, number: int) -> Gpu:
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(number)
            uuid = _text(pynvml.nvmlDeviceGetUUID(handle))
        except pynvml.NVMLError as error:
            known = self._known.get(number, Gpu())
            if error.value == pynvml.NVML_ERROR_NO_PERMISSION:  # it is not this container's to see
                return known
            return msgspec.structs.replace(known, faults=(_FAULTS.get(error.value, GpuFault.NVML_ERROR),))
        gpu = _read(uuid, handle)
        self._known[number] = msgspec.structs.replace(gpu, faults=())
        return gpu


def _read(uuid: str, handle: Any) -> Gpu:
    asks = _Asks()
    product = _text(asks.of("", pynvml.nvmlDeviceGetName, handle))
    memory = asks.of(None, pynvml.nvmlDeviceGetMemoryInfo, handle)
    cut = asks.of((0, 0), pynvml.nvmlDeviceGetMigMode, handle)[0] == pynvml.NVML_DEVICE_MIG_ENABLE
    faults = _memory_faults(asks, handle) | asks.faults
    return Gpu(
        uuid=uuid,
        product=product,
        memory_mib=0 if memory is None else min(memory.total // MIB, MEMORY_MIB_MAX),
        faults=tuple(sorted(faults)[:FAULTS_TOLD_MAX]),
        cut=cut,
        instances=_instances(handle) if cut else (),
    )


class _Asks:
    """Questions to a GPU; what is wrong with it beside the answers is in `faults`."""

    def __init__(self) -> None:
        self.faults: set[str] = set()

    def of(self, unknown: Any, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except pynvml.NVMLError as error:
            if error.value in _FAULTS:
                self.faults.add(_FAULTS[error.value])
            return unknown


def _memory_faults(asks: _Asks, handle: Any) -> set[str]:
    rows = _Remapped(*asks.of((), pynvml.nvmlDeviceGetRemappedRows, handle))
    uncorrected = (pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC)
    found = {
        GpuFault.REMAP_PENDING: rows.pending,
        GpuFault.REMAP_FAILED: rows.failed,
        GpuFault.ECC_UNCORRECTABLE: asks.of(0, pynvml.nvmlDeviceGetTotalEccErrors, handle, *uncorrected),
        GpuFault.MEMORY_UNREPAIRABLE: asks.of(0, pynvml.nvmlDeviceGetUnrepairableMemoryFlag_v1, handle),
    }
    return {fault for fault, count in found.items() if count}


def _instances(handle: Any) -> tuple[GpuInstance, ...] | None:
    """How it is cut; None where that is not told."""
    found: list[GpuInstance] = []
    try:
        for number in range(min(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle), INSTANCES_TOLD_MAX)):
            try:
                one = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
            except pynvml.NVMLError as error:
                if error.value == pynvml.NVML_ERROR_NOT_FOUND:
                    continue
                raise
            profile = _PROFILE.search(_text(pynvml.nvmlDeviceGetName(one)))
            name = profile[1][:PROFILE_CHARS_MAX] if profile else ""
            found.append(GpuInstance(pynvml.nvmlDeviceGetGpuInstanceId(one), name))
    except pynvml.NVMLError:
        return None
    return tuple(found)


def _fault_of(event: Any) -> str | None:
    """None for what a program did to itself."""
    if event.eventType == pynvml.nvmlEventTypeDoubleBitEccError:
        return GpuFault.ECC_UNCORRECTABLE
    if event.eventType != pynvml.nvmlEventTypeXidCriticalError or event.eventData in APPLICATION_XIDS:
        return None
    return xid(event.eventData)


def _address(handle: Any) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value


def _text(told: str) -> str:
    """As the wire takes it: short, and a byte a character."""
    return told.encode("ascii", "replace").decode()[:TEXT_CHARS_MAX]
