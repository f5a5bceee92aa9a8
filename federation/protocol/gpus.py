"""What a node's guard says of the node's GPUs: which there are, how they are cut, and what is wrong with them.

Whoever reads it takes it for no more than a stranger's word: it is bounded here, and can only make a node smaller.
"""

from __future__ import annotations

from enum import StrEnum, unique
from typing import Annotated, Final

import msgspec

# All at once are 50 kB: an agent takes 64 KiB from a guard, and one that is refused has no lease.
GPUS_TOLD_MAX: Final = 32  # of one node: machines have 16 at most
INSTANCES_TOLD_MAX: Final = 8  # of one GPU: it is cut into seven at most
FAULTS_TOLD_MAX: Final = 8  # of one GPU; of more the first by name, since any is enough
INSTANCE_FAULTS_TOLD_MAX: Final = 4
TEXT_CHARS_MAX: Final = 96  # NVML's own limit of names and UUIDs
PROFILE_CHARS_MAX: Final = 24
FAULT_CHARS_MAX: Final = 24
MEMORY_MIB_MAX: Final = 1 << 30
WHOLE_GPU: Final = -1  # instead of the id of an instance
EVENTS_TOLD_MAX: Final = 64  # in one reading; what a storm says beyond says nothing new

Text = Annotated[str, msgspec.Meta(max_length=TEXT_CHARS_MAX)]
Fault = Annotated[str, msgspec.Meta(min_length=1, max_length=FAULT_CHARS_MAX)]
Profile = Annotated[str, msgspec.Meta(max_length=PROFILE_CHARS_MAX)]
Faults = Annotated[tuple[Fault, ...], msgspec.Meta(max_length=FAULTS_TOLD_MAX)]
InstanceId = Annotated[int, msgspec.Meta(ge=WHOLE_GPU, le=0xFFFF)]


@unique
class GpuFault(StrEnum):
    """Why a GPU counts as unhealthy; stable words. On the wire they are text, so that a newer guard may know more."""

    LOST = "gpu-lost"  # fallen off the bus, or not to be reached by its driver
    RESET_REQUIRED = "reset-required"
    NVML_ERROR = "nvml-error"  # not even its UUID can be read
    NO_ANSWER = "no-answer"  # NVML has not answered in time: of all GPUs of the node
    ECC_UNCORRECTABLE = "ecc-uncorrectable"  # since the driver was loaded or the GPU was reset
    REMAP_FAILED = "row-remap-failed"
    REMAP_PENDING = "row-remap-pending"  # until the GPU is reset
    MEMORY_UNREPAIRABLE = "memory-unrepairable"


def xid(number: int) -> str:
    """The fault that an Xid is: `xid-79`."""
    return f"xid-{min(number, 999_999)}"


class GpuInstance(msgspec.Struct, frozen=True, array_like=True):
    """A MIG instance by the id and the profile that its driver gives it; an empty profile could not be read."""

    id: InstanceId
    profile: Profile
    faults: Annotated[tuple[Fault, ...], msgspec.Meta(max_length=INSTANCE_FAULTS_TOLD_MAX)] = ()


class Gpu(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One GPU as last read. What could not be read is empty, and counts as well; with any fault it is unhealthy."""

    uuid: Text = ""
    product: Text = ""
    memory_mib: Annotated[int, msgspec.Meta(ge=0, le=MEMORY_MIB_MAX)] = 0
    faults: Faults = ()
    cut: bool = False  # MIG is on: it is given away by instances
    instances: Annotated[tuple[GpuInstance, ...], msgspec.Meta(max_length=INSTANCES_TOLD_MAX)] | None = ()
    """Without a list it could not be read how it is cut."""


Gpus = Annotated[tuple[Gpu, ...], msgspec.Meta(max_length=GPUS_TOLD_MAX)]


class GpuEvent(msgspec.Struct, frozen=True, array_like=True):
    """A fault that the driver told of once, of a whole GPU or of one instance."""

    uuid: Text
    instance: InstanceId
    fault: Fault


class GpuReading(msgspec.Struct, frozen=True):
    """One look at all GPUs of a node, with what happened since the look before: a line that the probe prints."""

    gpus: Gpus
    events: Annotated[tuple[GpuEvent, ...], msgspec.Meta(max_length=EVENTS_TOLD_MAX)] = ()
