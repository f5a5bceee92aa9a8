"""What the free parts of nodes are worth to the pods that usually come, and what a pod would cost each node.

One formula, asked by placer, agent and simulator alike. Whole numbers throughout, so that all machines agree. Which
nodes have room for a pod is not known here.

The idea of judging a node by what its free parts are still good for is that of fragmentation gradient descent (Weng et
al., USENIX ATC 2023); the two terms are our own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from placement.layout import Ints
from placement.mix import GPU_MILLI, ClassMix, PodKind
from placement.prices import PRICE_SCALE, UNIT_MILLI, UNITS, Floats, prices, units_of, worth_of_shares

NEVER: Final = np.iinfo(np.int64).min  # the gain where a device has no room

ORDER_NODES_MIN: Final = 1_000  # smaller clusters have smaller differences in order, not larger steps

_FINE: Final = 1 << 10  # parts of a pod that are told apart
_NO_CPU: Final = 1e-6  # instead of no CPU at all: never what limits
_BLOCK: Final = 1 << 19  # kinds times states worked out at once: 4 MiB per step


@dataclass(frozen=True, slots=True)
class NodePolicy:
    """Weights of the terms that choose nodes."""

    hosted_weight: int = 1  # what the node could still host if the future were all of one kind, averaged over kinds
    shares_weight: int = 8  # what its free shares are worth in the best packing: holes nobody fills are worth nothing
    order_weight: int = 4  # GPUs between the first node and the thousandth: finishes nodes one after another


DEFAULT_NODE_POLICY: Final = NodePolicy()


@dataclass(frozen=True, slots=True)
class NodeStates:
    """Columns of nodes: number of the product, free CPU, and free milli of each device (0 or less: no such device)."""

    product_ids: Ints
    cpu: Ints
    free: Ints  # a row per device

    def __len__(self) -> int:
        return len(self.cpu)


class Worth:
    """The worth of node states to one mix, as far as it was learnt when this was built.

    A node is worth `hosted_weight * hosted + shares_weight * shares`:

    hosted: over the kinds with GPUs that the node's product and free CPU allow, how often the kind arrives times the
    milli of GPU that pods of it would fill, `gpus * gpu_milli * min(pods by GPU, free CPU / CPU asked)`. The last is
    not rounded, so that CPU has its price before it runs out.

    shares: the sum over devices of what a free share is worth (see `placement.prices`).

    Both are in milli GPU, times `scale`. O(kinds x states).
    """

    def __init__(self, mix: ClassMix, products: tuple[str, ...], policy: NodePolicy = DEFAULT_NODE_POLICY) -> None:
        kinds = sorted((kind, count) for kind, count in mix.counts.items() if kind.gpus)
        self.policy = policy
        self.scale = _FINE * max(1, mix.total)
        self._weights = _hosted_weights(kinds, products, policy)  # per product and kind
        self._per_cpu = np.array([[_FINE / max(kind.cpu_milli, _NO_CPU)] for kind, _ in kinds]).reshape(-1, 1)
        uses = sorted({(kind.gpus, kind.gpu_milli) for kind, _ in kinds})  # few: many kinds differ in CPU only
        place = {use: at for at, use in enumerate(uses)}
        self._use_of: Ints = np.array([place[kind.gpus, kind.gpu_milli] for kind, _ in kinds], dtype=np.int64)
        self._single: Ints = _pods_per_device([milli for gpus, milli in uses if gpus == 1])
        self._several = [use for use in uses if use[0] > 1]
        known: dict[tuple[tuple[int, int], ...], Ints] = {}  # most products are asked for alike
        self._shares: Ints = np.zeros((len(products), GPU_MILLI + 1), dtype=np.int64)
        for number, product in enumerate(products):
            demand = _demand(mix, product)
            if demand not in known:
                known[demand] = self._share_worths(demand)
            self._shares[number] = known[demand]

    def of(self, states: NodeStates) -> Ints:
        """What each state is worth."""
        block = _BLOCK // max(1, len(self._use_of))
        parts = [self._block(states, slice(at, at + block)) for at in range(0, len(states), block)]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    def _block(self, states: NodeStates, part: slice) -> Ints:
        held = np.maximum(states.free[:, part], 0)
        product_ids = states.product_ids[part]
        shares: Ints = self._shares[product_ids, held].sum(axis=0)
        if not len(self._use_of):
            return shares
        by_cpu = (states.cpu[part] + 0.5) * self._per_cpu  # with the half, 1 and more exactly where there is enough
        pods = np.minimum(self._pods(held)[self._use_of], by_cpu)
        pods *= by_cpu >= _FINE
        np.floor(pods, out=pods)
        # Whole numbers below 2 ** 53 in all their sums, so this is exact in whatever order it is added up.
        hosted = (self._weights @ pods)[product_ids, np.arange(len(product_ids))]
        worth: Ints = shares + hosted.astype(np.int64)
        return worth

    def _pods(self, held: Ints) -> Floats:
        """Per use and state how many pods the devices hold, in parts."""
        rows = [self._single[:, held].sum(axis=1)]
        rows.extend(((held >= milli).sum(axis=0) // gpus * _FINE)[None] for gpus, milli in self._several)
        return np.concatenate(rows).astype(np.float64)

    def _share_worths(self, demand: tuple[tuple[int, int], ...]) -> Ints:
        """Per free milli of one device."""
        priced = {UNITS: PRICE_SCALE} | prices(dict(demand))
        milli = worth_of_shares(priced) * (self.policy.shares_weight * self.scale) // (PRICE_SCALE // GPU_MILLI)
        found: Ints = milli[np.arange(GPU_MILLI + 1) // UNIT_MILLI]
        return found


def _demand(mix: ClassMix, product: str) -> tuple[tuple[int, int], ...]:
    """How often devices of a product are asked for, by size in units."""
    demand: dict[int, int] = {}
    for kind, count in mix.counts.items():
        if kind.gpus and (not kind.products or product in kind.products):
            size = units_of(kind.gpu_milli)
            demand[size] = demand.get(size, 0) + count * kind.gpus
    return tuple(sorted(demand.items()))


def _hosted_weights(kinds: list[tuple[PodKind, int]], products: tuple[str, ...], policy: NodePolicy) -> Floats:
    """What one pod of a kind counts on a product: 0 where it is not accepted."""
    rows = [
        [
            count * kind.gpus * kind.gpu_milli * policy.hosted_weight * (not kind.products or product in kind.products)
            for kind, count in kinds
        ]
        for product in products
    ]
    return np.array(rows, dtype=np.float64).reshape(len(products), len(kinds))


def _pods_per_device(needs: list[int]) -> Ints:
    """Per need and free milli, in parts."""
    milli = np.arange(GPU_MILLI + 1, dtype=np.int64)
    return np.array([milli // need * _FINE for need in needs], dtype=np.int64).reshape(len(needs), GPU_MILLI + 1)


def shared(kind: PodKind) -> bool:
    """Whether the pod uses a part of one device: then the devices of a node are not alike to it."""
    return kind.gpus == 1 and kind.gpu_milli < GPU_MILLI


def device_gains(worth: Worth, states: NodeStates, kind: PodKind) -> Ints:
    """A row per device: what a node's worth gains (it mostly loses) when a `shared` pod goes there.

    NEVER where the device has no room, or is just like a lower-numbered one.
    """
    free, count = states.free, len(states)
    order = free.argsort(axis=0, kind="stable")
    ordered = np.take_along_axis(free, order, axis=0)
    tried = ordered >= kind.gpu_milli
    tried[1:] &= ordered[1:] != ordered[:-1]
    places, nodes = np.nonzero(tried)
    devices = order[places, nodes]
    both = np.concatenate((free, free[:, nodes]), axis=1)  # before, and after each of the choices
    both[devices, count + np.arange(len(nodes))] -= kind.gpu_milli
    cpu = np.concatenate((states.cpu, states.cpu[nodes] - kind.cpu_milli))
    worths = worth.of(NodeStates(np.concatenate((states.product_ids, states.product_ids[nodes])), cpu, both))
    gained = np.full(free.shape, NEVER)
    gained[devices, nodes] = worths[count:] - worths[:count][nodes]
    return gained


def gains(worth: Worth, states: NodeStates, kind: PodKind) -> Ints:
    """What each node's worth gains when the pod goes there, to its best device; for nodes that have room."""
    if shared(kind):
        best: Ints = device_gains(worth, states, kind).max(axis=0)
        return best
    products, cpu = states.product_ids, states.cpu
    free = np.concatenate((states.free, without_tightest(states.free, kind)), axis=1)
    both = NodeStates(np.concatenate((products, products)), np.concatenate((cpu, cpu - kind.cpu_milli)), free)
    worths = worth.of(both)
    gained: Ints = worths[len(states) :] - worths[: len(states)]
    return gained


def without_tightest(free: Ints, kind: PodKind) -> Ints:
    """What is free when the pod has the devices it leaves the least on, the lowest-numbered of equal ones."""
    if not kind.gpus:
        return free
    room = free >= kind.gpu_milli
    order = np.where(room, free, GPU_MILLI + 1).argsort(axis=0, kind="stable")
    taken = np.zeros_like(room)
    np.put_along_axis(taken, order[: kind.gpus], values=True, axis=0)
    left: Ints = free - kind.gpu_milli * (taken & room)
    return left


def order_costs(worth: Worth, nodes: int) -> Ints:
    """Per node, in a fixed order, what is added to the cost of going there: the first are filled up first."""
    weight = worth.policy.order_weight * GPU_MILLI * worth.scale
    return np.arange(nodes, dtype=np.int64) * weight // max(ORDER_NODES_MIN, nodes)
