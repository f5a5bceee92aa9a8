"""What guards read of their nodes' GPUs, as long as it counts: it can make a node smaller than its kubelet says.

The lower of both words holds, so that a device which both have given up is missed once. A reading can only take away,
so forgetting one is what could harm: it counts for a while after its guard fell silent, as through an upgrade. After
that the kubelet's word stands alone, as on nodes without a probe; a node whose guard is silent gets nothing new anyway.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final, NamedTuple

from cluster_agents.core.config import NEVER
from federation.protocol.gpus import Gpu

READINGS_COUNT_FOR_S: Final = 600.0
"""After the guard's last word with one: six asks of the longest lease, and the time a new image takes to arrive."""

NOTED_EVERY_S: Final = 10.0
"""Of one node at most: anybody in the cluster's network can speak as its guard, and fill a log."""

MIG_MARK: Final = "-MIG-"  # of the product label: what follows is the profile of instances that go by the name of GPUs
SHARED_MARK: Final = "-SHARED"

FAULTS_NOTED_MAX: Final = 4  # GPUs named in one note

Note = tuple[str, dict[str, str]]


class Healthy(NamedTuple):
    """What a reading leaves of a node."""

    whole: int  # GPUs that are not cut
    cut: int  # GPUs that are
    instances: tuple[tuple[str, int], ...] | None  # by profile; None: nobody knows how they are cut

    def gpus(self, *, cut_too: bool) -> int:
        """At most so many whole GPUs; `cut_too` where they are given away whole although MIG is on."""
        return self.whole + (self.cut if cut_too else 0)

    def of(self, profile: str, told: int) -> int:
        """So many instances of a profile at most, of which the kubelet tells so many."""
        return told if self.instances is None else min(told, dict(self.instances).get(profile, 0))


class Reading(NamedTuple):
    """One node's, as far as it matters here. Equal ones change nothing."""

    healthy: Healthy
    faults: str  # in words
    product: str  # of the first GPU that tells it
    memory_mib: int


def reading_of(gpus: Iterable[Gpu]) -> Reading:
    """Pure. What could not be read counts as well."""
    gpus = tuple(gpus)
    well = [gpu for gpu in gpus if not gpu.faults]
    named = next((gpu for gpu in gpus if gpu.product), Gpu())
    sick = [f"{gpu.uuid or '?'}: {', '.join(faults)}" for gpu in gpus if (faults := _faults(gpu))]
    more = [f"and {len(sick) - FAULTS_NOTED_MAX} more"] if len(sick) > FAULTS_NOTED_MAX else []
    return Reading(
        Healthy(
            whole=sum(not gpu.cut for gpu in well),
            cut=sum(gpu.cut and not any(one.faults for one in gpu.instances or ()) for gpu in well),
            instances=_instances(gpus),
        ),
        faults="; ".join(sick[:FAULTS_NOTED_MAX] + more),
        product=named.product,
        memory_mib=named.memory_mib,
    )


def _instances(gpus: tuple[Gpu, ...]) -> tuple[tuple[str, int], ...] | None:
    """Healthy ones by profile, where all are known."""
    found = Counter[str]()
    for gpu in gpus:
        if gpu.instances is None or any(not one.profile for one in gpu.instances):
            return None
        if not gpu.faults:
            found.update(one.profile for one in gpu.instances if not one.faults)
    return tuple(sorted(found.items()))


def _faults(gpu: Gpu) -> list[str]:
    return [*gpu.faults, *(fault for one in gpu.instances or () for fault in one.faults)]


class GpusHeard:
    """By node of the inventory, its guard's last reading and when it came."""

    def __init__(self) -> None:
        self._readings: dict[str, Reading] = {}
        self._heard_s: dict[str, float] = {}  # oldest first
        self._noted_s: dict[str, float] = {}

    def healthy(self, node: str) -> Healthy | None:
        reading = self._readings.get(node)
        return None if reading is None else reading.healthy

    @property
    def due_s(self) -> float:
        """When the next reading ceases to count."""
        return next(iter(self._heard_s.values()), NEVER) + READINGS_COUNT_FOR_S

    def heard(self, node: str, reading: Reading, now_s: float) -> bool:
        """A node's guard has told it; True when that is news."""
        self._heard_s.pop(node, None)
        self._heard_s[node] = now_s
        news = self._readings.get(node) != reading
        self._readings[node] = reading
        return news

    def gone(self, node: str) -> None:
        for known in (self._readings, self._heard_s, self._noted_s):
            known.pop(node, None)

    def pass_time(self, now_s: float) -> list[str]:
        """The nodes whose readings count no more. O(those)."""
        found: list[str] = []
        for node, heard_s in self._heard_s.items():
            if now_s < heard_s + READINGS_COUNT_FOR_S:
                break
            found.append(node)
        for node in found:
            self.gone(node)
        return found

    def notes(self, node: str, now_s: float, *, product: str, memory_mib: int) -> list[Note]:
        """What the log is told of news: what is wrong, and where labels (`product`, `memory_mib`) and driver differ."""
        if now_s < self._noted_s.get(node, -NEVER) + NOTED_EVERY_S:
            return []
        self._noted_s[node] = now_s
        reading = self._readings[node]
        found = [("gpus.read", {"node": node, "healthy": str(sum(reading.healthy[:2])), "faults": reading.faults})]
        label, read = f"{product} of {memory_mib} MiB", f"{reading.product} of {reading.memory_mib} MiB"
        if not _alike(reading, product, memory_mib):
            found.append(("gpus.labels-differ", {"node": node, "labels": label, "driver": read}))
        return found


def _alike(reading: Reading, product: str, memory_mib: int) -> bool:
    """Labels write a product with dashes, and behind it how it is cut or shared; of an instance's memory as well."""
    name = product.removesuffix(SHARED_MARK).partition(MIG_MARK)[0]
    if product and reading.product and name != reading.product.replace(" ", "-"):
        return False
    known = memory_mib and reading.memory_mib and MIG_MARK not in product
    return not known or abs(memory_mib - reading.memory_mib) * 100 <= reading.memory_mib
