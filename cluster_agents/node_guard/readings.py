"""What a guard knows of its node's GPUs, from one reading to the next. Pure.

An Xid is told once and counts until the guard starts anew, as in NVIDIA's device plug-in, which knows no way back
(k8s-device-plugin, internal/plugin/server.go): whoever mends a GPU starts both again. All else is as last read.
"""

from __future__ import annotations

from typing import Final

import msgspec

from federation.protocol.gpus import (
    FAULTS_TOLD_MAX,
    GPUS_TOLD_MAX,
    INSTANCE_FAULTS_TOLD_MAX,
    INSTANCES_TOLD_MAX,
    WHOLE_GPU,
    Gpu,
    GpuEvent,
    GpuFault,
    GpuInstance,
    GpuReading,
)

KEPT_PER_DEVICE_MAX: Final = 4  # different Xids of one GPU or instance: any is enough
DEVICES_KEPT_MAX: Final = GPUS_TOLD_MAX * (INSTANCES_TOLD_MAX + 1)


class Readings:
    """`told` is what the agent is told: None while nothing is known."""

    def __init__(self) -> None:
        self.told: tuple[Gpu, ...] | None = None
        self._gpus: tuple[Gpu, ...] | None = None
        self._kept: dict[tuple[str, int], tuple[str, ...]] = {}  # by UUID and instance, oldest first

    def read(self, reading: GpuReading) -> None:
        for event in reading.events:
            self._keep(event)
        self._gpus = reading.gpus
        self.told = tuple(self._with_kept(gpu) for gpu in reading.gpus)

    def silent(self) -> None:
        """No reading came in time. Nobody can start anything on a GPU whose driver does not answer."""
        if self._gpus is not None:
            no_answer = (msgspec.structs.replace(gpu, faults=(GpuFault.NO_ANSWER,)) for gpu in self._gpus)
            self.told = tuple(self._with_kept(gpu) for gpu in no_answer)

    def lost(self) -> None:
        """Nothing is read any more, and nothing is known to be wrong: the agent goes by what else it has."""
        self._gpus = self.told = None

    @property
    def unhealthy(self) -> int:
        """How many GPUs have a fault, or an instance that has one."""
        return sum(bool(gpu.faults or any(one.faults for one in gpu.instances or ())) for gpu in self.told or ())

    def _keep(self, event: GpuEvent) -> None:
        device = event.uuid, event.instance
        known = self._kept.get(device, ())
        if event.fault in known or len(known) == KEPT_PER_DEVICE_MAX:
            return
        if known or len(self._kept) < DEVICES_KEPT_MAX:
            self._kept[device] = (*known, event.fault)

    def _with_kept(self, gpu: Gpu) -> Gpu:
        faults = sorted({*gpu.faults, *self._kept.get((gpu.uuid, WHOLE_GPU), ())})
        instances = gpu.instances
        if instances:
            instances = tuple(self._instance(gpu, one) for one in instances)
        return msgspec.structs.replace(gpu, faults=tuple(faults[:FAULTS_TOLD_MAX]), instances=instances)

    def _instance(self, gpu: Gpu, one: GpuInstance) -> GpuInstance:
        faults = sorted({*one.faults, *self._kept.get((gpu.uuid, one.id), ())})
        return msgspec.structs.replace(one, faults=tuple(faults[:INSTANCE_FAULTS_TOLD_MAX]))
