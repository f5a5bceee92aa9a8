"""In which order a gang fills the nodes that have room: cheapest first by what they are worth, else fullest first.

What a node is worth is `placement.worth`'s; here it is looked up, for nodes whose free GPUs are whole ones.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from placement.fleet import CPU_MILLI, GPUS, NodeTable, Shape
from placement.layout import Ints
from placement.mix import GPU_MILLI, ClassMix, MixFacts
from placement.model import GangRequest
from placement.worth import DEFAULT_NODE_POLICY, ORDER_NODES_MIN, NodePolicy, NodeStates, Worth

GPUS_KEPT: Final = 16  # free GPUs told apart; on larger machines more of them are worth the same
CPU_STEPS: Final = 1_024  # steps of free CPU told apart: up to 524 cores
CPU_SHIFT: Final = 9  # 512 milli each: shifting is much faster than dividing
LOSS_STEPS: Final = 64  # per GPU: losses are short integers, which sort in O(nodes)
LOSS_MAX: Final = 2**16 - 1
TABLES_MAX: Final = 256  # clusters differ in few lists of products; beyond that they are worked out again

Losses = npt.NDArray[np.uint16]


class LearntFacts(NamedTuple):
    """All that a `LearntWorth` knows, as a value."""

    mix: MixFacts
    seen: int
    now: MixFacts | None  # what `LearntWorth.now` was built on


class LearntWorth:
    """`now`: the worth of nodes to all that was asked for so far, None while that is too little."""

    __slots__ = ("_mix", "_policy", "_seen", "now")

    def __init__(self, policy: NodePolicy = DEFAULT_NODE_POLICY) -> None:
        self._policy = policy
        self._mix = ClassMix()
        self._seen = 0
        self.now: NodeWorth | None = None

    def asked(self, request: GangRequest) -> None:
        """A gang was asked for, wherever it will go."""
        self._mix.asked(request)
        if self._mix.version != self._seen:
            self._seen = self._mix.version
            self.now = NodeWorth(self._mix, self._policy)

    def facts(self) -> LearntFacts:
        """Everything learnt, for `recall`. O(kinds)."""
        return LearntFacts(self._mix.facts(), self._seen, self.now.mix_facts() if self.now is not None else None)

    def recall(self, facts: LearntFacts) -> None:
        """Know what another one knew: from here on both learn alike."""
        self._mix, self._seen = ClassMix.of(facts.mix), facts.seen
        self.now = NodeWorth(ClassMix.of(facts.now), self._policy) if facts.now is not None else None


class NodeWorth:
    """What nodes with whole free GPUs are worth to a mix, as far as it was learnt when this was built: looked up by
    product, free GPUs and free CPU."""

    __slots__ = ("_mix", "_tables", "policy")

    def __init__(self, mix: ClassMix, policy: NodePolicy = DEFAULT_NODE_POLICY) -> None:
        self.policy = policy
        self._mix = mix.copy()
        self._tables: dict[tuple[str, ...], npt.NDArray[np.float64]] = {}

    def mix_facts(self) -> MixFacts:
        """What this was built on."""
        return self._mix.facts()

    def losses(self, table: NodeTable, shape: Shape, rows: Ints, pods: Ints) -> Losses:
        """Per row what each of its `pods` (at least 1, and there is room) costs, with the row's place in the order.

        In 1 / LOSS_STEPS of a GPU, rounded: what is nearly equal counts as equal, and the order decides.
        """
        worth = self._table(table.layout.products)
        gpus, cpu = table.free[GPUS, rows], table.free[CPU_MILLI, rows]
        at = table.layout.product_ids[rows] * ((GPUS_KEPT + 1) * CPU_STEPS)
        before = worth[at + _place(gpus, cpu)]
        after = worth[at + _place(gpus - shape.gpus * pods, cpu - shape.cpu_milli * pods)]
        lost = (before - after) / pods + rows * (
            self.policy.order_weight * LOSS_STEPS / max(ORDER_NODES_MIN, len(table))
        )
        losses: Losses = np.rint(np.minimum(lost, LOSS_MAX)).astype(np.uint16)
        return losses

    def _table(self, products: tuple[str, ...]) -> npt.NDArray[np.float64]:
        found = self._tables.get(products)
        if found is None:
            if len(self._tables) >= TABLES_MAX:
                self._tables.clear()
            found = self._tables[products] = self._work_out(products)
        return found

    def _work_out(self, products: tuple[str, ...]) -> npt.NDArray[np.float64]:
        """Worth by product, free GPUs and free CPU, in 1 / LOSS_STEPS of a GPU.

        A step stands for its upper end, so that a node is not lost to pods that ask for all of its CPU.
        """
        worth = Worth(self._mix, products, self.policy)
        numbers, gpus, steps = np.meshgrid(
            np.arange(len(products)), np.arange(GPUS_KEPT + 1), np.arange(CPU_STEPS), indexing="ij"
        )
        free = GPU_MILLI * (np.arange(GPUS_KEPT)[:, None] < gpus.ravel())
        found = worth.of(NodeStates(numbers.ravel(), (steps.ravel() + 1 << CPU_SHIFT) - 1, free))
        return found.astype(np.float64) * (LOSS_STEPS / (GPU_MILLI * worth.scale))


def _place(gpus: Ints, cpu: Ints) -> Ints:
    """Where a state stands among those of its product."""
    place: Ints = np.minimum(gpus, GPUS_KEPT) * CPU_STEPS + np.minimum(cpu >> CPU_SHIFT, CPU_STEPS - 1)
    return place


def node_order(table: NodeTable, shape: Shape, rows: Ints, pods: Ints, worth: NodeWorth | None) -> Ints:
    """Places in `rows`, which all hold at least one of `pods`, in the order in which they are to be filled.

    Cheapest first; while nothing is known of the mix, those with the fewest free GPUs (for pods without GPUs then those
    with the least free CPU). Ties in table order.
    """
    if worth is None:
        return fullest_first(table.free[:, rows], gpus_asked=shape.gpus)
    order: Ints = worth.losses(table, shape, rows, pods).argsort(kind="stable")
    return order


def fullest_first(free: Ints, *, gpus_asked: int) -> Ints:
    """Columns by fewest free GPUs (pods without GPUs: then by least free CPU), then in table order."""
    gpus = free[GPUS].astype(np.uint16)  # a node has fewer (`GPUS_PER_NODE_MAX`), and short integers sort in O(nodes)
    order: Ints = gpus.argsort(kind="stable") if gpus_asked else np.lexsort((free[CPU_MILLI], gpus))
    return order
