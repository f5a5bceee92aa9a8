"""Parts of a GPU that are given away by themselves: MIG instances, and replicas of GPUs that are shared.

A node's table counts them by kind, one per pod. How a kind is called in a cluster's API is the agent's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Final, NamedTuple

from placement.mig import share_of_gpu
from placement.mix import GPU_MILLI

REPLICAS_MIN: Final = 2  # of one GPU: with fewer nobody shares it
DEVICES_PER_NODE_MAX: Final = 4_096  # far beyond any machine; what says more is a damaged report
KINDS_PER_CLUSTER_MAX: Final = 64  # as many as one report tells; what deltas add beyond is left out, each is a row
KINDS_PER_NODE_MAX: Final = 16  # a GPU is cut into at most seven instances, and the GPUs of a node mostly alike

_SHARED: Final = re.compile(r"shared/([1-9][0-9]{0,3})", re.ASCII)

DeviceCount = tuple[str, int, int]
"""What one node has of one kind: its name, how many in all, how many of them nobody holds."""


class Device(NamedTuple):
    """What a pod asks for: one instance of `profile`, or a share of `milli` thousandths of one GPU."""

    profile: str = ""
    milli: int = 0

    def __str__(self) -> str:
        return self.profile or f"{self.milli} milli of a GPU"

    @property
    def counted(self) -> str:
        """What is counted of it, in words."""
        return f"instances of {self.profile}" if self.profile else f"shares of at least {self.milli} milli"


Devices = tuple[tuple[Device, int], ...]
"""How many of each are asked for, in order. Of shares there is one entry at most: see `joined`."""


def shared_kind(replicas: int) -> str:
    """The kind of GPUs that so many pods share, each."""
    return f"shared/{replicas}"


def replicas_of(kind: str) -> int | None:
    """Inverse of `shared_kind`; None for an instance's profile."""
    found = _SHARED.fullmatch(kind)
    return int(found[1]) if found else None


def suits(kind: str, asked: Device) -> bool:
    """Whether one device of `kind` is all that `asked` wants.

    A share is rounded up to one replica, and a larger one does not fit: of two replicas nobody knows that they are of
    one GPU, and the plug-in gives no more time for them.
    """
    if asked.profile:
        return kind == asked.profile
    replicas = replicas_of(kind)
    return replicas is not None and replicas >= REPLICAS_MIN and replicas * asked.milli <= GPU_MILLI


def joined(devices: Iterable[tuple[Device, int]]) -> Devices:
    """What several pods on one node ask for together.

    A node shares its GPUs in one way, so where the largest share has a place all have one: as many replicas as pods.
    """
    counts: dict[Device, int] = {}
    shares, milli = 0, 0
    for device, count in devices:
        if device.profile:
            counts[device] = counts.get(device, 0) + count
        else:
            shares, milli = shares + count, max(milli, device.milli)
    if shares:
        counts[Device(milli=milli)] = shares
    return tuple(sorted(counts.items()))


def gpus_worth(device: Device) -> Fraction:
    """How much of a GPU it is, as quotas count it."""
    return share_of_gpu(device.profile) if device.profile else Fraction(device.milli, GPU_MILLI)


def well_told(devices: Iterable[DeviceCount]) -> Iterator[DeviceCount]:
    """By name, each kind once, and one way of sharing: the first. What is beyond KINDS_PER_NODE_MAX is left out."""
    shared, seen = False, set[str]()
    for kind, total, free in sorted(devices):
        replicas = replicas_of(kind)
        if kind in seen or len(seen) == KINDS_PER_NODE_MAX or (replicas is not None and shared):
            continue
        seen.add(kind)
        shared = shared or replicas is not None
        yield kind, total, free
