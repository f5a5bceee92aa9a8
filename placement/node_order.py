"""In which order a gang fills the nodes that have room: cheapest first by what they are worth, else fullest first.

What a node is worth is `placement.worth`'s; here it is looked up, for nodes whose free GPUs are whole ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from placement.fleet import CPU_MILLI, GPUS, NodeTable, Shape, device_of, kind_rows
from placement.layout import Ints
from placement.mix import GPU_MILLI, ClassMix, MixFacts, PodKind
from placement.model import GangRequest
from placement.node_states import NodeStates
from placement.scarcity import SCARCITY_PARTS, kinds_with_gpus, scarcities
from placement.worth import DEFAULT_NODE_POLICY, ORDER_NODES_MIN, NodePolicy, Worth

GPUS_KEPT: Final = 16  # free GPUs told apart; on larger machines more of them are worth the same
CPU_STEPS: Final = 1_024  # steps of free CPU told apart: up to 524 cores
CPU_SHIFT: Final = 9  # 512 milli each: shifting is much faster than dividing
FREE_CPU_SHIFT: Final = 14  # 16 cores: what is scarce needs no finer ones
FREE_CPU_STEPS: Final = 64
LOSS_STEPS: Final = 64  # per GPU: losses are short integers, which sort in O(nodes)
LOSS_MAX: Final = 2**16 - 1
LOOK_SHARE: Final = 16  # of all GPUs asked for since: what is scarce has not changed much before
LOOK_GPUS_MIN: Final = 64  # on small clusters: a look costs as much as some dozen decisions
TABLES_MAX: Final = 256  # clusters differ in few lists of products; beyond that they are worked out again

Losses = npt.NDArray[np.uint16]


class LearntFacts(NamedTuple):
    """All that a `LearntWorth` knows, as a value."""

    mix: MixFacts
    seen: int
    now: MixFacts | None  # what `LearntWorth.now` was built on
    scarcity: tuple[int, ...] = ()  # likewise
    due_in: int = 0


class LearntWorth:
    """`now`: the worth of nodes to all that was asked for so far, None while that is too little.

    What is asked for is counted when it is asked for; what it makes nodes worth is worked out by `look`.
    """

    __slots__ = ("_due_in", "_mix", "_policy", "_seen", "now")

    def __init__(self, policy: NodePolicy = DEFAULT_NODE_POLICY) -> None:
        self._policy = policy
        self._mix = ClassMix()
        self._seen = 0
        self._due_in = 0  # GPUs to be asked for before the next look
        self.now: NodeWorth | None = None

    @property
    def empty(self) -> bool:
        """Whether too little was asked for to tell anything."""
        return not self._mix.version

    def asked(self, request: GangRequest) -> None:
        """A gang was asked for, wherever it will go. Parts of GPUs teach nothing: they never come from whole ones."""
        if any(device_of(role) is not None for role in request.roles):
            return
        self._mix.asked(request)
        self._due_in -= request.gpus

    def look(self, tables: Iterable[NodeTable]) -> None:
        """Bring `now` up to date with what was asked for and with what is free on the nodes it is meant for.

        Nothing happens unless the mix is due (see `ClassMix`) or a LOOK_SHARE of the GPUs was asked for since the last
        time. O(nodes + kinds x different nodes).
        """
        if self.empty or (self._mix.version == self._seen and self._due_in > 0):
            return
        nodes = FreeNodes(tables)
        self._seen = self._mix.version
        self._due_in = max(LOOK_GPUS_MIN, nodes.gpus_total // LOOK_SHARE)
        scarcity = scarcities(self._mix, nodes.products, nodes.states, nodes.counts, self._policy.scarcity_power)
        grid = self.now.grid if self.now is not None else FIRST_GRID
        self.now = NodeWorth(self._mix, self._policy, scarcity, grid)

    def facts(self) -> LearntFacts:
        """Everything learnt, for `recall`. O(kinds)."""
        mix = self._mix.facts()
        if self.now is None:
            return LearntFacts(mix, self._seen, None, (), self._due_in)
        return LearntFacts(mix, self._seen, self.now.mix_facts(), self.now.scarcity, self._due_in)

    def recall(self, facts: LearntFacts) -> None:
        """Know what another one knew: from here on both learn alike."""
        self._mix, self._seen, self._due_in = ClassMix.of(facts.mix), facts.seen, facts.due_in
        self.now = None
        if facts.now is not None:
            self.now = NodeWorth(ClassMix.of(facts.now), self._policy, facts.scarcity or None)


@dataclass(frozen=True, slots=True)
class Grid:
    """Nodes told apart by product, free GPUs up to `gpus`, and free CPU in steps; what is larger counts as the last."""

    gpus: int
    steps: int
    shift: int = CPU_SHIFT

    @property
    def size(self) -> int:
        """Places of one product."""
        return (self.gpus + 1) * self.steps

    def places(self, product_ids: Ints, gpus: Ints, cpu: Ints) -> Ints:
        found = (product_ids * (self.gpus + 1) + np.minimum(gpus, self.gpus)) * self.steps
        found += np.minimum(cpu >> self.shift, self.steps - 1)
        return found

    def points(self, product_ids: Ints, gpus: Ints, cpu: Ints) -> Ints:
        """Of nodes that have no more than is told apart: `points >> shift` are their places, and each pod that one
        takes moves its point back by the `span` of the pod's shape."""
        found = product_ids * (self.gpus + 1)
        found += gpus
        found *= self.steps << self.shift
        found += cpu
        return found

    def span(self, shape: Shape) -> int:
        return shape.gpus * (self.steps << self.shift) + shape.cpu_milli

    def cuts(self, gpus: int, cpu: int) -> bool:
        """Whether nodes with so much are not told apart from smaller ones."""
        return gpus > self.gpus or cpu >> self.shift >= self.steps

    def states(self, places: Ints) -> NodeStates:
        """What stands there. A step stands for its upper end: no node is lost to pods that ask for all of its CPU."""
        rest, steps = np.divmod(places, self.steps)
        product_ids, gpus = np.divmod(rest, self.gpus + 1)
        free = GPU_MILLI * (np.arange(self.gpus)[:, None] < gpus)
        return NodeStates(product_ids, (steps + 1 << self.shift) - 1, free)

    def covers(self, gpus: int, cpu: int) -> bool:
        return (gpus <= self.gpus or self.gpus == GPUS_KEPT) and (
            cpu >> self.shift < self.steps or self.steps == CPU_STEPS
        )

    def grown(self, gpus: int, cpu: int) -> Grid:
        """The next larger one that covers so much, up to what is told apart at all."""
        found = self
        while not found.covers(gpus, cpu):
            wider, deeper = gpus > found.gpus, cpu >> found.shift >= found.steps
            found = Grid(
                min(GPUS_KEPT, found.gpus * 2) if wider else found.gpus,
                min(CPU_STEPS, found.steps * 2) if deeper else found.steps,
                found.shift,
            )
        return found


FIRST_GRID: Final = Grid(8, 128)  # most machines; worked out for all of it whenever the worth is learnt anew


class NodeWorth:
    """What nodes with whole free GPUs are worth to a mix, as far as it was learnt when this was built: looked up by
    product, free GPUs and free CPU."""

    __slots__ = ("_by_product", "_mix", "_tables", "grid", "policy", "scarcity")

    def __init__(
        self,
        mix: ClassMix,
        policy: NodePolicy = DEFAULT_NODE_POLICY,
        scarcity: tuple[int, ...] | None = None,
        grid: Grid = FIRST_GRID,
    ) -> None:
        """`scarcity`: see `placement.scarcity.scarcities`; all kinds are alike without it. `grid`: the first to try."""
        self.policy = policy
        self.scarcity = scarcity if scarcity is not None else (SCARCITY_PARTS,) * len(kinds_with_gpus(mix))
        self._mix = mix.copy()
        self.grid = grid
        self._by_product: dict[str, npt.NDArray[np.float64]] = {}
        self._tables: dict[tuple[str, ...], npt.NDArray[np.float64]] = {}

    def mix_facts(self) -> MixFacts:
        """What this was built on."""
        return self._mix.facts()

    def commonest(self, kept: int) -> tuple[tuple[PodKind, int], ...]:
        """The kinds that come most often, with how many of a thousand pods they are."""
        counts = sorted(self._mix.counts.items(), key=lambda item: (-item[1], item[0]))
        return tuple((kind, 1_000 * count // self._mix.total) for kind, count in counts[:kept])

    def losses(self, table: NodeTable, shape: Shape, rows: Ints, pods: Ints | int) -> Losses:
        """Per row what each of its `pods` (at least 1, and there is room) costs, with the row's place in the order.

        In 1 / LOSS_STEPS of a GPU, rounded: what is nearly equal counts as equal, and the order decides.
        """
        layout = table.layout
        free = table.free[GPUS].take(rows), table.free[CPU_MILLI].take(rows)
        lost = self.costs(layout.products, layout.product_ids.take(rows), free, shape, pods)
        lost += rows * (self.policy.order_weight * LOSS_STEPS / max(ORDER_NODES_MIN, len(table)))
        np.minimum(lost, LOSS_MAX, out=lost)
        losses: Losses = np.rint(lost, out=lost).astype(np.uint16)
        return losses

    def costs(
        self, products: tuple[str, ...], product_ids: Ints, free: tuple[Ints, Ints], shape: Shape, pods: Ints | int
    ) -> npt.NDArray[np.float64]:
        """What each of `pods` costs nodes with so many free GPUs and so much free CPU, in 1 / LOSS_STEPS of a GPU."""
        gpus, cpu = free
        gpus_max, cpu_max = int(gpus.max(initial=0)), int(cpu.max(initial=0))
        worth, grid = self._table(products, gpus_max, cpu_max)
        if grid.cuts(gpus_max, cpu_max):
            before = grid.places(product_ids, gpus, cpu)
            after = grid.places(product_ids, gpus - pods * shape.gpus, cpu - pods * shape.cpu_milli)
        else:
            before = grid.points(product_ids, gpus, cpu)
            after = before - pods * grid.span(shape)
            before >>= grid.shift
            after >>= grid.shift
        found: npt.NDArray[np.float64] = worth.take(before)
        found -= worth.take(after)
        if not isinstance(pods, int) or pods != 1:
            found /= pods
        return found

    def _table(self, products: tuple[str, ...], gpus: int, cpu: int) -> tuple[npt.NDArray[np.float64], Grid]:
        """The worth by product and place in the grid, which covers so much. Larger grids hold the same worth."""
        if not self.grid.covers(gpus, cpu):
            self.grid = self.grid.grown(gpus, cpu)
            self._by_product.clear()
            self._tables.clear()
        found = self._tables.get(products)
        if found is None:
            if len(self._tables) >= TABLES_MAX:
                self._tables.clear()
            missing = tuple(product for product in products if product not in self._by_product)
            if missing:
                self._by_product.update(zip(missing, self._work_out(missing), strict=True))
            parts = [self._by_product[product] for product in products]
            found = self._tables[products] = np.concatenate(parts) if parts else np.zeros(0)
        return found, self.grid

    def _work_out(self, products: tuple[str, ...]) -> npt.NDArray[np.float64]:
        """A row per product, in 1 / LOSS_STEPS of a GPU."""
        worth = Worth(self._mix, products, self.policy, self.scarcity)
        found = worth.of(self.grid.states(np.arange(len(products) * self.grid.size)))
        return found.reshape(len(products), -1).astype(np.float64) * (LOSS_STEPS / (GPU_MILLI * worth.scale))


class FreeNodes:
    """What is free on the usable nodes of some tables: `counts` nodes in each of `states`."""

    __slots__ = ("counts", "gpus_total", "products", "states")

    def __init__(self, tables: Iterable[NodeTable]) -> None:
        known = list(tables)
        self.products = tuple(sorted({product for table in known for product in table.layout.products}))
        self.gpus_total = sum(int(table.total[GPUS].sum()) for table in known)
        number = {product: at for at, product in enumerate(self.products)}
        grid = Grid(GPUS_KEPT, FREE_CPU_STEPS, FREE_CPU_SHIFT)
        counts: Ints = np.zeros(len(self.products) * grid.size, dtype=np.int64)
        for table in known:
            products = np.array([number[product] for product in table.layout.products], dtype=np.int64)
            ids = products.take(table.layout.product_ids)
            places = grid.places(ids, table.free[GPUS], table.free[CPU_MILLI])
            counts += np.bincount(places[table.usable], minlength=len(counts))
        (found,) = counts.nonzero()
        self.counts: Ints = counts[found]
        self.states = grid.states(found)


def first_node(table: NodeTable, shape: Shape, rows: Ints, worth: NodeWorth | None) -> int:
    """The first place of `node_order` for a single pod."""
    if worth is None:
        return int(fullest_first(table.free[:, rows], gpus_asked=shape.gpus)[0])
    return int(worth.losses(table, shape, rows, 1).argmin())


def node_order(table: NodeTable, shape: Shape, rows: Ints, pods: Ints, worth: NodeWorth | None) -> Ints:
    """Places in `rows`, which all hold at least one of `pods`, in the order in which they are to be filled.

    Cheapest first; while nothing is known of the mix, those with the fewest free GPUs (for pods without GPUs then those
    with the least free CPU). Ties in table order.
    """
    if shape.devices:
        return _least_left_first(table, shape, rows)
    if worth is None:
        return fullest_first(table.free[:, rows], gpus_asked=shape.gpus)
    order: Ints = worth.losses(table, shape, rows, pods).argsort(kind="stable")
    return order


def _least_left_first(table: NodeTable, shape: Shape, rows: Ints) -> Ints:
    """Fewest suitable parts of GPUs, then fewest free GPUs, then least free CPU."""
    kinds = table.layout.kinds
    left = sum(table.free[kind_rows(kinds, device)][:, rows].sum(axis=0) for device, _ in shape.devices)
    order: Ints = np.lexsort((table.free[CPU_MILLI, rows], table.free[GPUS, rows], left))
    return order


def fullest_first(free: Ints, *, gpus_asked: int) -> Ints:
    """Columns by fewest free GPUs (pods without GPUs: then by least free CPU), then in table order."""
    gpus = free[GPUS].astype(np.uint16)  # a node has fewer (`GPUS_PER_NODE_MAX`), and short integers sort in O(nodes)
    order: Ints = gpus.argsort(kind="stable") if gpus_asked else np.lexsort((free[CPU_MILLI], gpus))
    return order
