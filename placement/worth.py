"""What the free parts of nodes are worth to the pods that usually come, and what a pod would cost each node.

One formula, asked by placer, agent and simulator alike. Whole numbers throughout, so that all machines agree. Which
nodes have room for a pod is not known here.

The idea of judging a node by what its free parts are still good for is that of fragmentation gradient descent (Weng et
al., USENIX ATC 2023); the two terms are our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from placement.layout import Ints
from placement.mix import GPU_MILLI, ClassMix, PodKind
from placement.node_states import NodeStates, Uses, use_of
from placement.prices import PRICE_SCALE, UNIT_MILLI, UNITS, prices, units_of, worth_of_shares
from placement.scarcity import SCARCITY_PARTS, kinds_with_gpus

NEVER: Final = np.iinfo(np.int64).min  # the gain where a device has no room

ORDER_NODES_MIN: Final = 1_000  # smaller clusters have smaller differences in order, not larger steps

_FINE: Final = 64  # parts of a milli that are told apart where CPU limits
_CPU_SPAN: Final = 1 << 40  # above any node's milli CPU: keeps uses apart in one ascending list
_BLOCK: Final = 1 << 19  # uses times states worked out at once: 4 MiB per step


@dataclass(frozen=True, slots=True)
class NodePolicy:
    """Weights of the terms that choose nodes."""

    hosted_weight: int = 1  # what the node could still host if the future were all of one kind, averaged over kinds
    shares_weight: int = 8  # what its free shares are worth in the best packing: holes nobody fills are worth nothing
    order_weight: int = 4  # GPUs between the first node and the thousandth: finishes nodes one after another
    scarcity_power: int = 3  # with half of all that is free as room, a kind counts eight times; 0: all count alike


DEFAULT_NODE_POLICY: Final = NodePolicy()


class Worth:
    """The worth of node states to one mix, as far as it was learnt when this was built.

    A node is worth `hosted_weight * hosted + shares_weight * shares`:

    hosted: over the kinds with GPUs that the node's product and free CPU allow, how often the kind arrives times how
    scarce its room is times the milli of GPU that pods of it would fill, `gpus * gpu_milli * min(pods by GPU, free CPU
    / CPU asked)`. The last is not rounded, so that CPU has its price before it runs out.

    shares: the sum over devices of what a free share is worth (see `placement.prices`).

    Both are in milli GPU, times `scale`. O(uses x states), with the kinds of one use found by their CPU: whose CPU
    would suffice for all pods that the devices hold, and whose only for some of them.
    """

    def __init__(
        self,
        mix: ClassMix,
        products: tuple[str, ...],
        policy: NodePolicy = DEFAULT_NODE_POLICY,
        scarcity: Sequence[int] | None = None,
    ) -> None:
        """`scarcity`: see `placement.scarcity.scarcities`; all kinds are alike without it."""
        self.policy = policy
        self.scale = _FINE * SCARCITY_PARTS * max(1, mix.total)
        kinds = kinds_with_gpus(mix)
        factors = dict(zip(kinds, scarcity if scarcity is not None else [SCARCITY_PARTS] * len(kinds), strict=True))
        self._uses = Uses(kinds)
        place = {use: at for at, use in enumerate(self._uses.all)}
        kinds.sort(key=lambda kind: (place[use_of(kind)], kind))
        keys = [place[use_of(kind)] * _CPU_SPAN + min(kind.cpu_milli, _CPU_SPAN - 1) for kind in kinds]
        self._keys: Ints = np.array(keys, dtype=np.int64)
        self._starts: Ints = np.arange(len(place), dtype=np.int64)[:, None] * _CPU_SPAN
        self._first: Ints = self._keys.searchsorted(self._starts)
        weights = _hosted_weights([(kind, mix.counts[kind] * factors[kind]) for kind in kinds], products, policy)
        per_cpu = np.array([max(1, kind.cpu_milli) for kind in kinds], dtype=np.int64)
        self._whole = _summed(weights)  # per product and place in the list: of all kinds before it
        self._by_cpu = _summed(weights // per_cpu)
        self._shares: Ints = _shares(mix, products, policy, self.scale)

    def of(self, states: NodeStates) -> Ints:
        """What each state is worth."""
        block = _BLOCK // max(1, len(self._starts))
        parts = [self._block(states.part(slice(at, at + block))) for at in range(0, len(states), block)]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    def _block(self, states: NodeStates) -> Ints:
        products, cpu = states.product_ids, states.cpu
        worth: Ints = self._shares[products, np.maximum(states.free, 0)].sum(axis=0)
        if not len(self._starts):
            return worth
        pods = self._uses.pods(states.free)
        some = self._keys.searchsorted(self._starts + np.minimum(cpu, _CPU_SPAN - 1), side="right")
        enough = np.minimum(cpu // np.maximum(pods, 1), _CPU_SPAN - 1)  # CPU for each of them
        all_of = self._keys.searchsorted(self._starts + enough, side="right")
        hosted = pods * (self._whole[products, all_of] - self._whole[products, self._first])
        hosted += (pods > 0) * cpu * (self._by_cpu[products, some] - self._by_cpu[products, all_of])
        worth += hosted.sum(axis=0)
        return worth


def _hosted_weights(kinds: list[tuple[PodKind, int]], products: tuple[str, ...], policy: NodePolicy) -> Ints:
    """Per product what one pod of a kind counts: 0 where it is not accepted."""
    size = [kind.gpus * kind.gpu_milli * count * policy.hosted_weight * _FINE for kind, count in kinds]
    accepts = [[not kind.products or product in kind.products for kind, _ in kinds] for product in products]
    found: Ints = np.array(accepts, dtype=np.int64).reshape(len(products), len(kinds)) * np.array(size, dtype=np.int64)
    return found


def _summed(weights: Ints) -> Ints:
    """Per product, at each place the sum of those before it."""
    found: Ints = np.concatenate((np.zeros((len(weights), 1), dtype=np.int64), weights), axis=1).cumsum(axis=1)
    return found


def _shares(mix: ClassMix, products: tuple[str, ...], policy: NodePolicy, scale: int) -> Ints:
    """Per product what a free share is worth, by its milli."""
    known: dict[tuple[tuple[int, int], ...], Ints] = {}  # most products are asked for alike
    shares: Ints = np.zeros((len(products), GPU_MILLI + 1), dtype=np.int64)
    for number, product in enumerate(products):
        demand = _demand(mix, product)
        if demand not in known:
            priced = {UNITS: PRICE_SCALE} | prices(dict(demand))
            milli = worth_of_shares(priced) * (policy.shares_weight * scale) // (PRICE_SCALE // GPU_MILLI)
            known[demand] = milli[np.arange(GPU_MILLI + 1) // UNIT_MILLI]
        shares[number] = known[demand]
    return shares


def _demand(mix: ClassMix, product: str) -> tuple[tuple[int, int], ...]:
    """How often devices of a product are asked for, by size in units."""
    demand: dict[int, int] = {}
    for kind, count in mix.counts.items():
        if kind.gpus and (not kind.products or product in kind.products):
            size = units_of(kind.gpu_milli)
            demand[size] = demand.get(size, 0) + count * kind.gpus
    return tuple(sorted(demand.items()))


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
