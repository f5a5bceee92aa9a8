"""A synthetic fleet and what people submit to it: drawn from a seed, the same for the same seed everywhere.

The mix follows public traces in kind: most groups are small, most GPUs belong to few large gangs. No trace is read
here, and nothing is decided.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from random import Random
from typing import Final

from placement.fleet import NodeRow
from placement.model import GpuRequest, PodGroup, Role, Topology

GPUS_PER_NODE: Final = 8
NODES_PER_CLIQUE: Final = 8
NODES_PER_BLOCK: Final = 64
CPU_MILLI_PER_NODE: Final = 128_000
MEMORY_MIB_PER_NODE: Final = 2_048_000

PRODUCTS_PER_CLUSTER: Final = 2
PRODUCTS: Final = ("A100-40", "A100-80", "H100-80", "H200-141", "L40S-48", "B200-192")

# GPUs of a group -> share of all groups; the mean is 58.
SIZES: Final[dict[int, float]] = {
    1: 0.421,
    2: 0.12,
    4: 0.12,
    8: 0.12,
    16: 0.06,
    32: 0.04,
    64: 0.03,
    128: 0.02,
    256: 0.02,
    512: 0.012,
    1024: 0.037,
}
CPU_MILLI_PER_GPU: Final = (4_000, 8_000, 12_000)
MEMORY_MIB_PER_GPU: Final = (65_536, 131_072, 196_608)
PRODUCT_LISTS: Final = (
    (),
    *((one,) for one in PRODUCTS),
    ("A100-40", "A100-80"),
    ("H100-80", "H200-141"),
    ("B200-192", "H100-80", "H200-141"),
    ("A100-80", "H100-80", "L40S-48"),
    ("A100-40", "A100-80", "L40S-48"),
)


@dataclass(frozen=True, slots=True)
class Shape:
    """One pod of a class, and which products it accepts."""

    gpus: int
    cpu_milli: int
    memory_mib: int
    products: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WorkloadClass:
    """A request class as people write it: equal pods, and the topology they ask for."""

    shape: Shape
    pods: int
    required: str = ""
    preferred: str = ""

    def pod_group(self, name: str) -> PodGroup:
        """A manifest of this class."""
        shape = self.shape
        amounts = {"cpu": f"{shape.cpu_milli}m", "memory": f"{shape.memory_mib}Mi", "nvidia.com/gpu": shape.gpus}
        container = {"name": "main", "image": "train", "resources": {"limits": amounts}}
        role = Role(
            count=self.pods,
            template={"spec": {"containers": [container]}},
            gpu=GpuRequest(whole=shape.gpus),
            products=shape.products,
        )
        return PodGroup(name=name, roles=(role,), topology=Topology(required=self.required, preferred=self.preferred))


def shapes(count: int) -> list[Shape]:
    """The first `count` of all shapes, spread over sizes, CPU, memory and products alike."""
    ratios = list(product(CPU_MILLI_PER_GPU, MEMORY_MIB_PER_GPU))
    found = [
        Shape(gpus, gpus * cpu, gpus * memory, products)
        for cpu, memory in ratios
        for products in PRODUCT_LISTS
        for gpus in (1, 2, 4, 8)
    ]
    if count > len(found):  # beyond the plain ones: odd amounts of memory
        found += [
            Shape(one.gpus, one.cpu_milli, one.memory_mib - 1024 * extra, one.products)
            for extra in range(1, 1 + count // len(found))
            for one in found[: len(found)]
        ]
    return found[:count]


def classes(shape_count: int) -> dict[int, list[WorkloadClass]]:
    """All classes over the first `shape_count` shapes, by the GPUs of the group."""
    by_size: dict[int, list[WorkloadClass]] = {}
    for shape in shapes(shape_count):
        for gpus in SIZES:
            if gpus % shape.gpus or gpus // shape.gpus > 128:
                continue
            if gpus > GPUS_PER_NODE and shape.gpus < GPUS_PER_NODE:
                continue  # large gangs take whole nodes
            by_size.setdefault(gpus, []).extend(_topologies(shape, gpus // shape.gpus))
    return by_size


def _topologies(shape: Shape, pods: int) -> Iterator[WorkloadClass]:
    yield WorkloadClass(shape, pods)
    gpus = shape.gpus * pods
    if pods > 1 and gpus <= GPUS_PER_NODE:
        yield WorkloadClass(shape, pods, required="host")
    if pods > 1 and gpus <= GPUS_PER_NODE * NODES_PER_CLIQUE:
        yield WorkloadClass(shape, pods, required="clique")
    if gpus > GPUS_PER_NODE:
        yield WorkloadClass(shape, pods, preferred="block")


def oversized_group(number: int) -> PodGroup:
    """A gang that fits nowhere: of one of many classes that wait for ever."""
    shape = Shape(GPUS_PER_NODE, 8_000 + 4_000 * (number % 8), 65_536, (PRODUCTS[number % len(PRODUCTS)],))
    return WorkloadClass(shape, 9_000 + number % 1_000).pod_group(f"never-{number}")


class Workload:
    """An endless stream of submissions, none larger than `gpus_max`."""

    def __init__(self, seed: int, shape_count: int, *, gpus_max: int) -> None:
        self._random = Random(f"workload-{seed}")
        self._by_size = {size: found for size, found in classes(shape_count).items() if size <= gpus_max}
        self._sizes = list(self._by_size)
        self._weights = [SIZES[size] for size in self._sizes]
        self.seen: set[WorkloadClass] = set()
        self.gpus_sum = 0
        self.count = 0

    @property
    def gpus_mean(self) -> float:
        return sum(size * SIZES[size] for size in self._sizes) / sum(self._weights)

    def next(self) -> PodGroup:
        (size,) = self._random.choices(self._sizes, self._weights)
        chosen = self._random.choice(self._by_size[size])
        self.seen.add(chosen)
        self.gpus_sum += size
        self.count += 1
        return chosen.pod_group(f"g-{self.count}")


def node_rows(cluster: int, clusters: int, nodes: int, *, used: float, seed: int) -> list[NodeRow]:
    """The nodes of one cluster of a fleet, with a share `used` of their GPUs taken by others for good.

    Clusters have two products, more in fleets that would lack some otherwise. Whole nodes are taken first, then parts
    of a few: as consolidating schedulers leave them.
    """
    random = Random(f"nodes-{seed}-{cluster}")
    own = max(PRODUCTS_PER_CLUSTER, -(-len(PRODUCTS) // clusters))
    turn = cluster // len(PRODUCTS)  # not the same pairs everywhere
    kinds = [PRODUCTS[(cluster * own + number * (1 + turn)) % len(PRODUCTS)] for number in range(own)]
    return [_node_row(cluster, number, kinds[number * own // nodes], used, random) for number in range(nodes)]


def _node_row(cluster: int, number: int, product_name: str, used: float, random: Random) -> NodeRow:
    partly = random.random() < 0.1
    taken = random.randrange(1, GPUS_PER_NODE) if partly else GPUS_PER_NODE * (random.random() < used)
    share = taken / GPUS_PER_NODE
    return NodeRow(
        name=f"c{cluster:03}-n{number:04}",
        product=product_name,
        gpus_total=GPUS_PER_NODE,
        gpus_free=GPUS_PER_NODE - taken,
        cpu_milli_total=CPU_MILLI_PER_NODE,
        cpu_milli_free=int(CPU_MILLI_PER_NODE * (1 - 0.9 * share)),
        memory_mib_total=MEMORY_MIB_PER_NODE,
        memory_mib_free=int(MEMORY_MIB_PER_NODE * (1 - 0.9 * share)),
        clique=f"q{number // NODES_PER_CLIQUE:04}",
        rack=f"r{number // NODES_PER_CLIQUE:04}",
        block=f"b{number // NODES_PER_BLOCK:03}",
        zone="z0",
    )
