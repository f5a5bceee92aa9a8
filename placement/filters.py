"""Which clusters may host a group at all, before anybody looks at nodes. Each filter is a line of `FILTERS`.

A filter returns why the cluster is out, or None. Room on nodes and scores do not belong here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from placement.fleet import ClusterView
from placement.model import (
    GROUPS_PER_CLUSTER_MAX,
    Because,
    ClusterName,
    GangRequest,
    GroupUid,
    Position,
    QueueName,
    Reason,
    labels_match,
)
from placement.spread import SpreadAsk

DEFAULT_QUEUE = QueueName("default")


@dataclass(frozen=True, slots=True)
class Pending:
    """A group that waits for a home. `avoid`: clusters that refused it lately (the placer lets that decay).

    `batch_at`: the first position of the journal entry it was submitted in. All of one entry are equally old.
    `spread`: it stands for all children of a spread group, and asks for the least that one of them may get. A child
    that waits by itself has `siblings`, the first one's uid, and stays out of the clusters where they are (`apart`).
    """

    uid: GroupUid
    submitted_at: Position
    priority: int
    request: GangRequest
    queue: QueueName = DEFAULT_QUEUE
    avoid: frozenset[ClusterName] = frozenset()
    displaced: bool = False  # it lost its home without its agent's word: such moves are rate-limited
    shunned: tuple[ClusterName, ...] = ()  # they failed this group, the last one first: see `preferred`
    batch_at: Position | None = None  # None: it came alone
    beside: str = ""  # namespace and `failure_spread`: rather away from the others with the same
    spread: SpreadAsk | None = None
    siblings: GroupUid | None = None
    apart: frozenset[ClusterName] = frozenset()
    lost: int = 0  # homes in a row, by itself; only explanations read it

    @property
    def age_at(self) -> Position:
        """What says who is older: never later than `submitted_at`."""
        return self.submitted_at if self.batch_at is None else self.batch_at


def _labels_wanted(view: ClusterView, item: Pending) -> Because | None:
    if labels_match(view.labels, item.request.cluster_labels):
        return None
    keys = ", ".join(key for key, values in item.request.cluster_labels if view.labels.get(key) not in values)
    return Because(Reason.CLUSTER_NOT_WANTED, detail=f"another value is asked for {keys}")


def _labels_not_wanted(view: ClusterView, item: Pending) -> Because | None:
    for key, values in item.request.cluster_labels_not:
        if view.labels.get(key) in values:
            return Because(Reason.CLUSTER_NOT_WANTED, detail=f"{key}={view.labels[key]} is not wanted")
    return None


def _lease_class(view: ClusterView, item: Pending) -> Because | None:
    if not item.request.lease_classes or view.lease_class in item.request.lease_classes:
        return None
    return Because(Reason.LEASE_CLASS_NOT_ACCEPTED, detail=view.lease_class)


def _fenced(view: ClusterView, _item: Pending) -> Because | None:
    return Because(Reason.CLUSTER_FENCED) if view.fenced else None


def _admitted(view: ClusterView, _item: Pending) -> Because | None:
    return None if view.admitted else Because(Reason.CLUSTER_NOT_ADMITTED)


def _silent(view: ClusterView, _item: Pending) -> Because | None:
    return Because(Reason.CLUSTER_SILENT) if view.silent else None


def _cordoned(view: ClusterView, _item: Pending) -> Because | None:
    return Because(Reason.CLUSTER_CORDONED) if view.cordoned else None


def _well(view: ClusterView, _item: Pending) -> Because | None:
    return _failing(view.tried_in_s) if view.tripped else None


def _failing(tried_in_s: float) -> Because:
    when = f"the next one is tried in {tried_in_s:.0f} s" if tried_in_s else "one is being tried"
    return Because(Reason.CLUSTER_FAILING, detail=f"most groups failed there lately; {when}")


def _takes_more(view: ClusterView, _item: Pending) -> Because | None:
    return takes_no_more(view) if view.groups_left <= 0 else None


def takes_no_more(view: ClusterView) -> Because:
    """Why nobody follows those that it got: one was to try it, or it has as many groups as there may be."""
    if view.half_open:
        return _failing(0.0)
    return Because(Reason.TOO_MANY_GROUPS, detail=f"it has {GROUPS_PER_CLUSTER_MAX}, as many as its agent answers for")


def _fresh(view: ClusterView, _item: Pending) -> Because | None:
    return Because(Reason.VIEW_STALE, detail=f"last report is {view.view_age_s:.0f} s old") if view.stale else None


def refused_lately(view: ClusterView, item: Pending) -> Because | None:
    if view.name in item.avoid:
        again = f"the group was lost {item.lost} times in a row: it is tried later, and in no fourth cluster"
        return Because(Reason.REFUSED_LATELY, detail=again if item.lost > 1 else "it refused this group")
    if view.refused_lately and item.request in view.refused_lately:
        return Because(Reason.REFUSED_LATELY, detail="it refused an equal request")
    return None


def sibling_there(view: ClusterView, item: Pending) -> Because | None:
    return Because(Reason.SIBLING_THERE) if view.name in item.apart else None


def preferred(shunned: tuple[ClusterName, ...], fits: Collection[ClusterName]) -> Collection[ClusterName]:
    """Of the clusters that fit, those that never failed the group; without any, all but the one that did last, and that
    one only if it is alone."""
    for names in (shunned, shunned[:1]):
        others = [name for name in fits if name not in names]
        if others:
            return others
    return fits


Filter = Callable[[ClusterView, Pending], Because | None]

# In the order in which the first failing one is shown: what no wait will change, then what an operator or the cluster
# itself must change, then what passes by itself. `LASTING` look only at the labels that the request asks for.
LASTING: tuple[Filter, ...] = (
    _labels_wanted,
    _labels_not_wanted,
    _lease_class,
    _fenced,
    _admitted,
    _silent,
    _cordoned,
    _well,
    _takes_more,
    _fresh,
)
OF_THE_GROUP: tuple[Filter, ...] = (sibling_there, refused_lately)
FILTERS: tuple[Filter, ...] = (*LASTING, *OF_THE_GROUP)


def cluster_refusal(view: ClusterView, item: Pending, *, lasting_only: bool = False) -> Because | None:
    """Why this cluster may not host the group now, by the first filter that says so; None if it may."""
    for check in LASTING if lasting_only else FILTERS:
        because = check(view, item)
        if because is not None:
            return because
    return None
