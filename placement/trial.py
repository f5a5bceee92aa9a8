"""One cycle's view of the fleet: what would be left after the decisions so far, who is closed, what was looked at.

Answers the engine's questions about one group after another. Who comes next is `placement.waiting`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from placement.assignment import Assignment
from placement.beside import NO_KIN, Beside, Kin
from placement.elastic import sizes_of
from placement.filters import OF_THE_GROUP, Pending, cluster_refusal, takes_no_more
from placement.fleet import Fleet, Shape
from placement.layout import Bools, Ints
from placement.memory import Choice, Memory
from placement.model import Because, ClusterName, GangRequest, GroupUid, QueueName, Reason
from placement.quota import QuotaLines, Quotas, charge
from placement.reasons import Counts, counted, in_order, misfits_counted
from placement.request_class import EVERYWHERE, LabelKey, LevelKey, RequestClass
from placement.score import Candidate, Contenders, Policy, candidate, rank, top_candidates
from placement.spread import most_held, sized


@dataclass(frozen=True, slots=True)
class Gates:
    """Which clusters a group may go to before anybody looks at nodes, and why not to the others."""

    open: Bools
    closed: tuple[Because, ...]
    numbers: frozenset[int]  # of the open ones


class Fits(NamedTuple):
    """Clusters that hold the gang now, ascending, and in which of them the preferred topology is met.

    `holds`: for each attempt of a quick class, in which of all clusters it would succeed.
    """

    clusters: Ints
    met: Bools
    holds: tuple[Bools, ...] = ()


class Trial:
    """`evaluations` counts the clusters in which a fit was looked for: known answers cost none. `searches`: those of
    them where nodes had to be searched, since counting does not say whether such a gang fits."""

    __slots__ = (
        "_gates",
        "_kin",
        "_left",
        "_looked",
        "_memory",
        "_most",
        "_none_met",
        "_quotas",
        "_refusing",
        "_siblings",
        "_sites",
        "_taken",
        "evaluations",
        "fleet",
        "searches",
    )

    def __init__(self, fleet: Fleet, quotas: Quotas, memory: Memory, beside: Beside = NO_KIN) -> None:
        memory.sync(fleet)
        self.fleet = fleet
        self.evaluations = 0
        self.searches = 0
        self._memory = memory
        self._quotas: dict[QueueName, QuotaLines] = dict(quotas)
        self._gates: dict[LabelKey, Gates] = {}
        self._refusing = [view for view in fleet.values() if view.refused_lately]
        self._most: dict[tuple[Shape, LevelKey], int] = {}
        self._none_met = np.zeros(len(memory.names), dtype=np.bool_)
        self._sites = memory.sites_of(fleet)
        self._kin = Kin(fleet, memory.names, beside)
        self._siblings: dict[GroupUid, frozenset[ClusterName]] = {}  # where this cycle placed siblings
        self._left = {memory.at[view.name]: view.groups_left for view in fleet.values()}
        self._taken: list[int] = []  # clusters, in the order of decisions
        self._looked: dict[RequestClass, int] = {}  # how many of `_taken` were known when a fit was last looked for

    # --- before looking at nodes ---

    def quota_lines(self, queue: QueueName) -> QuotaLines:
        return self._quotas.get(queue, {})

    def class_of(self, request: GangRequest) -> RequestClass:
        """The class of a smaller size of a gang that waits."""
        return self._memory.class_of(request)

    def has_room(self, known: RequestClass) -> bool:
        """False only if no cluster, open or not, could hold the gang with what is left."""
        known = self.least(known)
        if not known.quick:
            return True
        if not known.attempts:
            return False
        last = known.attempts[-1]
        key = last.shape, EVERYWHERE if last.on_host else last.level
        most = self._most.get(key)
        if most is None:
            most = self._most[key] = int(self._memory.capacity(*key).max(initial=0))
        return most >= last.count

    def gates(self, item: Pending, known: RequestClass) -> Gates:
        """By labels and the clusters' own gates, then by where its siblings are and by who refused lately."""
        gates = self._gates_of_all(item, known)
        if item.siblings is not None:
            item = replace(item, apart=item.apart | self._siblings.get(item.siblings, frozenset()))
        if not item.avoid and not item.apart and not self._refusing:
            return gates
        return self._without_closed(item, gates)

    def _gates_of_all(self, item: Pending, known: RequestClass) -> Gates:
        """For all groups that ask for the same labels."""
        gates = self._gates.get(known.labels)
        if gates is None:
            gates = self._gates[known.labels] = self._look_at_gates(item)
        return gates

    def _look_at_gates(self, item: Pending) -> Gates:
        is_open = np.zeros(len(self._memory.names), dtype=np.bool_)
        closed: list[Because] = []
        for view in self.fleet.values():
            because = cluster_refusal(view, item, lasting_only=True)
            if because is None and not self._left[self._memory.at[view.name]]:
                because = takes_no_more(view)
            if because is None:
                is_open[self._memory.at[view.name]] = True
            else:
                closed.append(because)
        return Gates(is_open, tuple(closed), frozenset(is_open.nonzero()[0].tolist()))

    def _without_closed(self, item: Pending, gates: Gates) -> Gates:
        """Without those that are closed to this group only."""
        is_open = gates.open.copy()
        closed = list(gates.closed)
        names = item.avoid | item.apart | {view.name for view in self._refusing}
        for name in sorted(names & self.fleet.keys()):
            because = next((said for check in OF_THE_GROUP if (said := check(self.fleet[name], item))), None)
            if because is not None and is_open[self._memory.at[name]]:
                is_open[self._memory.at[name]] = False
                closed.append(because)
        return Gates(is_open, tuple(closed), frozenset(is_open.nonzero()[0].tolist()))

    # --- room ---

    def fits(self, known: RequestClass, gates: Gates) -> Fits:
        """Where the gang fits now, of the clusters open to it."""
        self._count_evaluations(known, gates)
        memory = self._memory
        if not known.quick:
            asked = np.flatnonzero(gates.open)
            answers = [memory.ask(cluster, known.request) for cluster in asked.tolist()]
            found = [isinstance(answer, Assignment) for answer in answers]
            preferred = [answer.preferred_met for answer in answers if isinstance(answer, Assignment)]
            return Fits(asked[np.array(found, dtype=np.bool_)], np.array(preferred, dtype=np.bool_))
        holds = tuple(memory.holds(tracked) for tracked in memory.tracked(known))
        if not holds:
            return Fits(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.bool_))
        (clusters,) = (holds[-1] & gates.open).nonzero()
        first = holds[0] if known.attempts[0].preferred_met else self._none_met
        return Fits(clusters, first[clusters], holds)

    def without_shunned(self, item: Pending, fits: Fits) -> Fits:
        """The same, without the clusters that failed the group, as far as others fit: see `filters.preferred`."""
        for names in (item.shunned, item.shunned[:1]):
            numbers = [self._memory.at[name] for name in names if name in self._memory.at]
            if not numbers:
                return fits
            others = ~np.isin(fits.clusters, numbers)
            if others.any():
                return Fits(fits.clusters[others], fits.met[others], fits.holds)
        return fits

    def only(self, fits: Fits, cluster_name: ClusterName) -> Fits:
        """The same, of one cluster that fits."""
        here = fits.clusters == self._memory.at[cluster_name]
        return Fits(fits.clusters[here], fits.met[here], fits.holds)

    def most(self, request: GangRequest, cluster_name: ClusterName, most: int) -> int:
        """How many replicas one cluster that holds `request` could hold instead, `most` at most: read off what is
        counted anyway where that says it."""
        cluster, known = self._memory.at[cluster_name], self.class_of(request)
        if known.quick and not known.attempts[-1].on_host:
            last = known.attempts[-1]
            return min(most, int(self._memory.capacity(last.shape, last.level)[cluster]))
        return most_held(request.pods, most, lambda pods: self._holds(cluster, sized(request, pods)))

    def holds(self, cluster_name: ClusterName, request: GangRequest) -> bool:
        """Whether this cluster has room for all of it; known already where it was counted."""
        return self._has_room(self._memory.at[cluster_name], request)

    def _holds(self, cluster: int, request: GangRequest) -> bool:
        self.evaluations += 1
        return self._has_room(cluster, request)

    def _has_room(self, cluster: int, request: GangRequest) -> bool:
        known = self.class_of(request)
        if not known.quick:
            return isinstance(self._memory.ask(cluster, request), Assignment)
        return bool(self._memory.holds(self._memory.tracked(known)[-1])[cluster])

    def _count_evaluations(self, known: RequestClass, gates: Gates) -> None:
        looked = self._looked.get(known)
        self._looked[known] = len(self._taken)
        if looked is None or len(self._taken) - looked > len(gates.open):
            count = max(1, len(self.fleet) - len(gates.closed))
        else:
            count = len(gates.numbers.intersection(self._taken[looked:]))
        self.evaluations += count
        self.searches += 0 if known.quick else count

    # --- choice ---

    def candidates(
        self, known: RequestClass, fits: Fits, policy: Policy, *, kept: int, beside: str = ""
    ) -> tuple[Candidate, ...]:
        """The `kept` best of the clusters that fit, best first. `beside`: see `Pending`."""
        memory = self._memory
        sites = self._sites.terms(known.request.data, fits.clusters)
        if beside:
            sites = (*sites, *self._kin.terms(beside, fits.clusters))
        if known.quick:
            free, total = memory.amounts(known)
            costs = memory.costs(known, fits.clusters)
            at = fits.clusters
            contenders = Contenders(memory.names, at, free.take(at), total.take(at), fits.met, costs, sites)
            return top_candidates(contenders, known.asked, policy, units=known.units, kept=kept)
        costs = memory.costs(known, fits.clusters).tolist()
        found: list[Candidate] = []
        for number, (cluster, cost) in enumerate(zip(fits.clusters.tolist(), costs, strict=True)):
            assignment = memory.ask(cluster, known.request)
            assert isinstance(assignment, Assignment)
            name, table = memory.names[cluster], memory.rows[cluster].table
            here = tuple((term, column[number : number + 1]) for term, column in sites)
            found.append(candidate(name, table, assignment, policy, cost=cost, sites=here))
        return rank(found)[:kept]

    def take(self, item: Pending, known: RequestClass, fits: Fits, cluster_name: ClusterName) -> Choice:
        """Take the gang's place in a cluster that fits."""
        memory = self._memory
        cluster = memory.at[cluster_name]
        if known.quick:
            first = next(number for number, holds in enumerate(fits.holds) if holds[cluster])
            choice = memory.choose(cluster, known, memory.tracked(known)[first])
        else:
            assignment = memory.ask(cluster, known.request)
            assert isinstance(assignment, Assignment)
            choice = memory.choice_of(cluster, assignment)
        self._take(item, cluster, choice, charged=1)
        if item.beside:
            self._kin.took(item.beside, cluster_name)
        if item.siblings is not None:
            self._siblings[item.siblings] = self._siblings.get(item.siblings, frozenset()) | {cluster_name}
        return choice

    def _take(self, item: Pending, cluster: int, choice: Choice, *, charged: int) -> None:
        """Take what was chosen, or, `charged` -1, give it back."""
        if charged > 0:
            self._memory.take(cluster, choice)
        else:
            self._memory.give(cluster, choice)
        self._taken.append(cluster)
        had = self._left[cluster]
        self._left[cluster] -= charged
        if not (had and self._left[cluster]):
            self._gates.clear()  # closed from here on, for all, or open again
        if item.queue in self._quotas:
            self._quotas[item.queue] = charge(item.request, self._quotas[item.queue], times=charged)

    # --- taking back: only what depends on nobody's place (no siblings, nobody to stay away from) ---

    def give(self, item: Pending, cluster_name: ClusterName, choice: Choice) -> None:
        """As if what this cycle took had never been taken."""
        self._most.clear()
        self._take(item, self._memory.at[cluster_name], choice, charged=-1)

    def take_again(self, item: Pending, cluster_name: ClusterName, choice: Choice) -> None:
        """Take what was given back, just as it was."""
        self._take(item, self._memory.at[cluster_name], choice, charged=1)

    def free_in(self, clusters: Iterable[ClusterName], item: Pending, known: RequestClass) -> dict[ClusterName, int]:
        """What is free of the gang's resource, at least on all nodes that it may use, in those open to the group."""
        memory, numbers = self._memory, self.gates(item, known).numbers
        here = {name: at for name in clusters if (at := memory.at[name]) in numbers}
        if not known.quick:  # its roles may use different nodes
            return {name: int(memory.rows[at].table.free[known.resource].sum()) for name, at in here.items()}
        free, _ = memory.amounts(known)
        return {name: int(free[at]) for name, at in here.items()}

    def gpus_free(self, wanted: Iterable[tuple[Pending, RequestClass]], clusters: Iterable[ClusterName]) -> int:
        """At least what is free where any of them may stand, also in `clusters`."""
        open_to = {known.labels: self._gates_of_all(item, known).open for item, known in wanted}
        where = np.logical_or.reduce(list(open_to.values()))
        where[[self._memory.at[name] for name in clusters]] = True
        filters = {nodes: None for _, known in wanted for nodes in known.gpu_nodes}
        return sum(int(self._memory.gpus_free(nodes)[where].sum()) for nodes in filters)

    def fits_anywhere(self, item: Pending, known: RequestClass) -> bool:
        """Whether a cluster that is open to the group holds it, or its smallest size."""
        return len(self.fits(self.least(known), self.gates(item, known)).clusters) > 0

    def least(self, known: RequestClass) -> RequestClass:
        """The class of the smallest size."""
        return self.class_of(sizes_of(known.request).smallest) if known.request.elastic else known

    # --- reasons ---

    def refused(self, known: RequestClass, gates: Gates, fits: Fits) -> Counts:
        """Clusters out of the question, counted by reason. To be asked before anything is taken."""
        if len(fits.clusters) == len(self.fleet):
            return ()
        if not gates.closed and fits.holds and known.single_role and len(gates.open) == len(self.fleet):
            never = self._memory.fixed.never(known)
            if (fits.holds[-1] | never.where).all():  # as usual: it fits wherever it ever could
                return never.counts
        counts = dict(counted(because.reason for because in gates.closed))
        if len(fits.clusters) + len(gates.closed) < len(self.fleet):
            misfit = gates.open.copy()
            misfit[fits.clusters] = False
            for reason, found in self._misfits(known, np.flatnonzero(misfit)).items():
                counts[reason] = counts.get(reason, 0) + found
        return in_order(counts)

    def _misfits(self, known: RequestClass, clusters: Ints) -> dict[Reason, int]:
        if known.quick and known.single_role:
            return misfits_counted(self._memory, known, clusters)
        return dict(counted(self._first_reason(known, cluster).reason for cluster in clusters.tolist()))

    def refusals(self, known: RequestClass, gates: Gates) -> list[Because]:
        """Why each cluster is out of the question, with quantities, where none fits."""
        return [*gates.closed, *(self._first_reason(known, cluster) for cluster in np.flatnonzero(gates.open).tolist())]

    def _first_reason(self, known: RequestClass, cluster: int) -> Because:
        answer = self._memory.ask(cluster, known.request)
        assert not isinstance(answer, Assignment)
        return answer[0]
