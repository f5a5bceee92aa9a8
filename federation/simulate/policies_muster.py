"""Our own rule on a pool of nodes: the very scoring by which placer and agents choose nodes (`placement.worth`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from federation.simulate.openb_lists import GPU_MILLI, PodShape, PodSpec
from federation.simulate.openb_pool import Ints, Pool
from federation.simulate.policies import NO_ROOM, ScoreRows
from placement.mix import ClassMix, PodKind
from placement.node_order import LOOK_SHARE
from placement.node_states import NodeStates
from placement.scarcity import scarcities
from placement.worth import DEFAULT_NODE_POLICY, NodePolicy, Worth, device_gains, gains, order_costs, shared


class Muster:
    """Learns the mix of kinds from those that arrive, refused ones included, or is `given` it.

    Looks at what is free, and at the mix, when `placement.node_order.LearntWorth` would.
    """

    def __init__(self, pool: Pool, given: Sequence[PodSpec] = (), policy: NodePolicy = DEFAULT_NODE_POLICY) -> None:
        self._pool = pool
        self._policy = policy
        self._look_every = GPU_MILLI * sum(node.gpus for node in pool.nodes) // LOOK_SHARE
        self._mix = ClassMix()
        for pod in given:
            self._mix.arrived(kind_of(pod.shape))
        self._learns = not given
        self._rows = ScoreRows(pool, self._score)
        self._look()

    def arrived(self, shape: PodShape) -> None:
        if self._learns:
            self._mix.arrived(kind_of(shape))
        self._due_in -= shape.demand_milli
        if self._mix.version != self._version or self._due_in <= 0:
            self._look()

    def row(self, shape: PodShape) -> Ints:
        return self._rows.row(shape)

    def devices(self, node: int, shape: PodShape) -> tuple[int, ...]:
        kind = kind_of(shape)
        if not shared(kind):
            return self._pool.tightest(node, shape)
        return (int(device_gains(self._worth, self._states(np.array([node])), kind)[:, 0].argmax()),)

    def _look(self) -> None:
        self._version, self._due_in = self._mix.version, self._look_every
        pool, policy = self._pool, self._policy
        everywhere = np.arange(len(pool))
        scarce = scarcities(
            self._mix, pool.models, self._states(everywhere), np.ones_like(everywhere), policy.scarcity_power
        )
        self._worth = Worth(self._mix, pool.models, policy, scarce)
        self._order_costs = order_costs(self._worth, len(pool))[pool.ranks]
        self._rows.forget()

    def _score(self, shape: PodShape, nodes: Ints) -> Ints:
        room = self._pool.fits(shape, nodes)
        scores = np.full(len(nodes), NO_ROOM)
        with_room = nodes[room]
        if len(with_room):
            gained = gains(self._worth, self._states(with_room), kind_of(shape))
            scores[room] = gained - self._order_costs[with_room]
        return scores

    def _states(self, nodes: Ints) -> NodeStates:
        pool = self._pool
        return NodeStates(pool.model_ids[nodes], pool.cpu[nodes], pool.free[:, nodes])


def kind_of(shape: PodShape) -> PodKind:
    return PodKind(shape.cpu_milli, shape.gpus, shape.gpu_milli, shape.models)
