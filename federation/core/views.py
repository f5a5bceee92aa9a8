"""What agents last reported: one capacity view per cluster, and when each cluster was last heard.

Soft state, rebuilt within one report round. Reports may come late, twice or out of order; only higher stamps count
(S10). What is placed on a view is the placer's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Final

from federation.core.reported import NO_KINDS, merged, node_rows
from federation.protocol.lease import Timings
from federation.protocol.messages import (
    DEVICE_KINDS_MAX,
    LIVE_TOKENS_MAX,
    NODE_KINDS_MAX,
    ROOMY_MAX,
    NodeKinds,
    NodeRows,
    Report,
    Stamp,
)
from federation.protocol.parts import PARTS_MAX, join
from placement.devices import KINDS_PER_NODE_MAX
from placement.fleet import GPUS_PER_NODE_MAX, NodeTable, TooManyNodesError
from placement.layout import NodeLayout
from placement.model import NODES_PER_CLUSTER_MAX, ClusterName, FenceStrength, Token

AMOUNT_ABS_MAX: Final = 2**62  # fits the tables' integers; within it absurd amounts are cut to what a node has
TOLD_MAX: Final = 256  # unmerged deltas a view holds: minutes of a busy cluster
REPORT_WANTED_EVERY_S: Final = 2.0  # a full report of 5,000 nodes is ~1 MiB: ask once, then let it arrive

_STRENGTHS: Final = {strength.value: strength for strength in FenceStrength}


@unique
class Taken(StrEnum):
    """What became of a report; stable codes for notes and metrics."""

    ACCEPTED = "accepted"
    OLD_STAMP = "old-stamp"
    NOT_FOLLOWING = "not-following"  # a delta on a report that is not the one held: a full one is needed
    MALFORMED = "malformed"
    PART = "part"  # of a report in parts: the view stays as it is until all of them are here


@dataclass(slots=True)
class View:
    """One cluster's capacity as its agent last told it: after everything it decided up to `applied`."""

    stamp: Stamp
    applied: int
    accepted_at_s: float
    age_s: float
    epoch: int
    live: bool
    fence_strength: FenceStrength
    tokens: frozenset[str] | None
    groups: dict[str, str]  # of `tokens`: the group of each, or an empty text
    keeps_records: bool  # answers with `Claims` for groups that a restored fleet does not know
    recovers: str  # the lineage whose Recovering lease it was made under; older agents do not say it
    unhealthy: dict[str, int]  # GPUs that are, by node, where there are any: shown to people, no part of the table
    roomy: frozenset[str]  # tokens of gangs that could get more pods where the others stand: see `Report`
    rows_stamp: Stamp  # of the newest report that changed rows or `applied`
    _told: list[tuple[NodeRows, NodeKinds]]  # not merged yet: the first is a full report's if there is no table
    _nodes_max: int  # how many nodes there can be with all that was told
    _table: NodeTable | None = None
    _layout: NodeLayout | None = None  # of the view before a full report: kept if no node came, went or moved

    def table(self) -> NodeTable:
        """The nodes as reported; merged only when somebody looks, which followers never do."""
        if self._table is None:
            self._table = _on_layout(self._layout, NodeTable.build(node_rows(*self._told.pop(0))))
        if self._told:
            told, self._told = self._told, []
            self._table = merged(self._table, told)
        return self._table

    @property
    def layout(self) -> NodeLayout | None:
        return self._table.layout if self._table is not None else self._layout

    def change(self, columns: NodeRows, kinds: NodeKinds = NO_KINDS) -> None:
        """Take a delta; TooManyNodesError as soon as it makes the cluster too large, never when somebody looks."""
        self._told.append((columns, kinds))
        known = self._table.layout.row_by_name if self._table is not None else {}
        self._nodes_max += sum(name not in known for name in columns.name)
        if self._nodes_max > NODES_PER_CLUSTER_MAX or len(self._told) > TOLD_MAX:
            self._nodes_max = len(self.table())


@dataclass(slots=True)
class _Heard:
    at_s: float
    stamp: Stamp | None = None
    wanted_at_s: float | None = None


class Views:
    """All capacity views that this replica holds."""

    def __init__(self, timings: Timings) -> None:
        self._timings = timings
        self._views: dict[ClusterName, View] = {}
        self._heard: dict[ClusterName, _Heard] = {}
        self._parts: dict[ClusterName, list[Report]] = {}  # of reports that are not whole yet

    def get(self, cluster: str) -> View | None:
        return self._views.get(ClusterName(cluster))

    def expect(self, cluster: str, now_s: float) -> None:
        """From now on this cluster should be heard; its silence counts from here."""
        self._heard.setdefault(ClusterName(cluster), _Heard(now_s))

    def forget(self, cluster: str) -> None:
        """It is no part of the fleet any more."""
        for known in (self._views, self._heard, self._parts):
            known.pop(ClusterName(cluster), None)

    def was_paused(self, now_s: float) -> None:
        """This process did not listen for a while: nobody is silent for that."""
        for heard in self._heard.values():
            heard.at_s = now_s

    def take(self, report: Report, now_s: float) -> Taken:
        """Accept a report, or say why not. Whatever is newer than all before proves that the agent lives."""
        cluster = ClusterName(report.cluster)
        heard = self._heard.setdefault(cluster, _Heard(now_s))
        if heard.stamp is not None and report.stamp <= heard.stamp:
            return Taken.OLD_STAMP
        heard.at_s = now_s
        heard.stamp = report.stamp
        view = self._views.get(cluster)
        if report.parts > 1:
            whole = self._joined(cluster, report)
            if not isinstance(whole, Report):
                return whole
            report = whole
        else:
            self._parts.pop(cluster, None)
        try:
            _check(report)
            if report.follows is None:
                self._views[cluster] = _fresh(report, view, now_s)
                return Taken.ACCEPTED
            if view is None or view.stamp != report.follows:
                return Taken.NOT_FOLLOWING
            _follow(view, report, now_s)
        except ValueError:
            self._views.pop(cluster, None)  # half of it may be taken: only a full report helps
            return Taken.MALFORMED
        return Taken.ACCEPTED

    def _joined(self, cluster: ClusterName, part: Report) -> Report | Taken:
        """The whole report once this was its last part."""
        held = self._parts.pop(cluster, [])
        if not 0 <= part.part < part.parts <= PARTS_MAX:
            return Taken.MALFORMED
        if part.part == 0:
            held = []
        elif not held or (held[-1].stamp, held[0].parts, len(held)) != (part.follows, part.parts, part.part):
            return Taken.NOT_FOLLOWING
        held.append(part)
        if len(held) == part.parts:
            return join(held)
        self._parts[cluster] = held
        return Taken.PART

    def wants_full(self, cluster: str, now_s: float) -> bool:
        """Whether to ask for a full report now; true at most every `REPORT_WANTED_EVERY_S`."""
        heard = self._heard.setdefault(ClusterName(cluster), _Heard(now_s))
        if heard.wanted_at_s is not None and now_s - heard.wanted_at_s < REPORT_WANTED_EVERY_S:
            return False
        heard.wanted_at_s = now_s
        return True

    def silence_s(self, cluster: str, now_s: float) -> float:
        heard = self._heard.get(ClusterName(cluster))
        return now_s - heard.at_s if heard is not None else 0.0

    def silent(self, cluster: str, now_s: float) -> bool:
        """Heartbeats are missing: shown to people, and nothing new is placed there."""
        return self.silence_s(cluster, now_s) >= self._timings.silent_after_s

    def age_s(self, cluster: str, now_s: float) -> float:
        """How old what the view says may be; infinite without one."""
        view = self._views.get(ClusterName(cluster))
        return now_s - view.accepted_at_s + view.age_s if view is not None else float("inf")

    def stale(self, cluster: str, now_s: float) -> bool:
        return self.age_s(cluster, now_s) > self._timings.view_stale_s


def _check(report: Report) -> None:
    """ValueError for a report that says too much, or whose columns do not agree."""
    columns, kinds = report.rows, report.node_kinds
    count = len(columns.name)
    if count > NODES_PER_CLUSTER_MAX:
        raise TooManyNodesError(count)
    lengths = {
        len(columns.product),
        len(columns.cpu_milli),
        len(columns.memory_mib),
        len(columns.gpus),
        len(columns.gpus_free),
        len(columns.cpu_milli_total),
        len(columns.memory_mib_total),
        len(columns.clique),
        len(columns.rack),
        len(columns.block),
        len(columns.zone),
        len(columns.usable),
        len(kinds.unhealthy),
        len(kinds.at),
        len(kinds.tainted),
        len(kinds.devices_at),
    }
    if not lengths <= {0, count}:
        raise ValueError(f"columns of lengths {sorted(lengths)} beside {count} names")
    for amounts in (
        columns.cpu_milli,
        columns.memory_mib,
        columns.gpus,
        columns.gpus_free,
        columns.cpu_milli_total,
        columns.memory_mib_total,
    ):
        if amounts and not -AMOUNT_ABS_MAX <= min(amounts) <= max(amounts) <= AMOUNT_ABS_MAX:
            raise ValueError(f"amounts beyond {AMOUNT_ABS_MAX} of anything")
    if any(not 0 <= count <= GPUS_PER_NODE_MAX for count in kinds.unhealthy):
        raise ValueError(f"unhealthy GPUs of a node that are not within 0 and {GPUS_PER_NODE_MAX}")
    if len(kinds.kinds) > NODE_KINDS_MAX:
        raise ValueError(f"{len(kinds.kinds)} kinds of nodes, at most {NODE_KINDS_MAX} are allowed")
    if kinds.at and not 0 <= min(kinds.at) <= max(kinds.at) < len(kinds.kinds):
        raise ValueError(f"a kind of node outside of the {len(kinds.kinds)} that are told")
    if len(kinds.devices) > DEVICE_KINDS_MAX or len(set(kinds.devices)) < len(kinds.devices):
        raise ValueError(
            f"{len(kinds.devices)} kinds of parts of GPUs, at most {DEVICE_KINDS_MAX}, each once, are allowed"
        )
    if any(len(one) > KINDS_PER_NODE_MAX for one in kinds.devices_at):
        raise ValueError(f"a node with more than {KINDS_PER_NODE_MAX} kinds of parts of GPUs")
    if not all(0 <= count[0] < len(kinds.devices) for one in kinds.devices_at for count in one):
        raise ValueError(f"a kind of parts of GPUs outside of the {len(kinds.devices)} that are told")
    _check_tokens(report)


def _check_tokens(report: Report) -> None:
    if report.uids and len(report.uids) != len(report.tokens or ()):
        raise ValueError(f"{len(report.uids)} groups beside {len(report.tokens or ())} tokens")
    if report.tokens is not None and len(report.tokens) > LIVE_TOKENS_MAX:
        raise ValueError(f"{len(report.tokens)} tokens reported, at most {LIVE_TOKENS_MAX} are allowed")
    for token in report.tokens or ():
        Token.parse(token)
    if len(report.roomy) > ROOMY_MAX:
        raise ValueError(f"{len(report.roomy)} gangs with room for more, at most {ROOMY_MAX} are allowed")


def _on_layout(layout: NodeLayout | None, table: NodeTable) -> NodeTable:
    """The same table, on an equal layout that others know already: what was computed about it stays valid."""
    if layout is None or (layout.places, layout.kinds) != (table.layout.places, table.layout.kinds):
        return table
    return NodeTable(layout, table.free, table.total, table.usable, table.clamped)


def _fresh(report: Report, before: View | None, now_s: float) -> View:
    return View(
        stamp=report.stamp,
        applied=report.applied,
        accepted_at_s=now_s,
        age_s=max(0.0, report.age_s),
        epoch=report.epoch,
        live=report.live,
        fence_strength=_strength(report),
        tokens=frozenset(report.tokens) if report.tokens is not None else None,
        groups=_groups(report),
        keeps_records=report.keeps_records,
        recovers=report.recovers,
        unhealthy=_unhealthy(report),
        roomy=frozenset(report.roomy),
        rows_stamp=report.stamp,
        _told=[(report.rows, report.node_kinds)],
        _nodes_max=len(report.rows.name),
        _layout=before.layout if before is not None else None,
    )


def _unhealthy(report: Report) -> dict[str, int]:
    counts = report.node_kinds.unhealthy
    return {name: count for name, count in zip(report.rows.name, counts, strict=True) if count} if counts else {}


def _follow(view: View, report: Report, now_s: float) -> None:
    if report.rows.name or report.rows.gone:
        view.change(report.rows, report.node_kinds)
        for name in (*report.rows.name, *report.rows.gone):
            view.unhealthy.pop(name, None)
        view.unhealthy |= _unhealthy(report)
        view.rows_stamp = report.stamp
    elif report.applied != view.applied:
        view.rows_stamp = report.stamp
    view.stamp = report.stamp
    view.applied = report.applied
    view.accepted_at_s = now_s
    view.age_s = max(0.0, report.age_s)
    view.epoch = report.epoch
    view.live = report.live
    view.fence_strength = _strength(report)
    view.tokens = frozenset(report.tokens) if report.tokens is not None else None
    view.groups = _groups(report)
    view.keeps_records = report.keeps_records
    view.recovers = report.recovers
    view.roomy = frozenset(report.roomy)


def _groups(report: Report) -> dict[str, str]:
    tokens = report.tokens or ()
    return dict(zip(tokens, report.uids or ("",) * len(tokens), strict=True))


def _strength(report: Report) -> FenceStrength:
    """What a newer agent calls by another name is counted as no fence at all."""
    return _STRENGTHS.get(report.fence_strength, FenceStrength.NONE)
