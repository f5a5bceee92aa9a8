"""Spread groups: the children that one becomes, and how those of one are found again. The parent itself is no group
(decision 0018): its uid names its first child and how many there were.

How replicas are divided is `placement.spread`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from federation.core.rows import GroupRow
from placement.model import (
    SPREAD_CLUSTERS_MAX,
    Divide,
    GangRequest,
    GroupUid,
    Lineage,
    Phase,
    PodGroup,
    Position,
    Spread,
    SpreadChild,
    Token,
    group_uid,
)
from placement.spread import SpreadAsk, even_share, sized
from placement.spread_rules import SPREAD_LABEL

_OF: Final = "~"  # in the uid of a spread group, between its first child's and the number of children


# --- what one becomes ---


def children_count(spread: Spread, replicas: int) -> int:
    """One per cluster that it may use and has replicas for."""
    return min(spread.clusters.max, replicas // spread.min_per_cluster)


def children_of(group: PodGroup) -> tuple[PodGroup, ...]:
    """The children of a group with `spread`. Each asks for the most replicas that it may get, and for the least as its
    `min_count`."""
    assert group.spread is not None
    spread, (role,) = group.spread, group.roles
    of = children_count(spread, role.count)
    most = role.count - (spread.clusters.min - 1) * spread.min_per_cluster
    if spread.max_per_cluster is not None:
        most = min(most, spread.max_per_cluster)
    return tuple(
        group.model_copy(
            update={
                "name": f"{group.name}-{number}",
                "labels": {**group.labels, SPREAD_LABEL: group.name},
                "roles": (role.model_copy(update={"count": most}),),
                "min_count": spread.min_per_cluster,
                "child": SpreadChild(name=group.name, number=number, of=of, replicas=role.count),
            }
        )
        for number in range(1, of + 1)
    )


# --- identity ---


def first_uid(uid: GroupUid, number: int) -> GroupUid:
    """The uid of a child's first sibling: all stand in one entry, in order."""
    lineage, position = Token.parse(uid)
    return group_uid(Lineage(lineage), Position(position - (number - 1)))


def spread_uid(first: GroupUid, of: int) -> str:
    return f"{first}{_OF}{of}"


def uids_of(uid: str) -> tuple[GroupUid, ...] | None:
    """The uids of the children that a spread group was submitted with; None for what is no spread group's uid."""
    first, mark, of = uid.rpartition(_OF)
    if not mark or not (of.isascii() and of.isdigit() and len(of) <= len(str(SPREAD_CLUSTERS_MAX))):
        return None
    try:
        lineage, position = Token.parse(first)
    except ValueError:
        return None
    return tuple(group_uid(lineage, Position(position + number)) for number in range(int(of)))


def spread_uid_of(row: GroupRow) -> str:
    """The uid of the spread group that a child is of."""
    assert row.child is not None
    return spread_uid(first_uid(row.uid, row.child.number), row.child.of)


# --- as the engine sees them ---


def undivided(children: Sequence[GroupRow]) -> bool:
    """Whether they wait as one: all of them are here, none was ever placed, and nobody wants one of them otherwise."""
    child = children[0].child
    assert child is not None
    return len(children) == child.of and all(row.phase is Phase.PENDING and not row.attempts for row in children)


def ask_of(children: Sequence[GroupRow]) -> SpreadAsk:
    """What undivided children ask for together."""
    child, request = children[0].child, children[0].request
    assert child is not None
    return SpreadAsk(
        children=tuple(row.uid for row in children),
        replicas=child.replicas,
        least=request.min_count,
        most=request.pods,
        clusters_min=child.clusters_min,
        divide=Divide(child.divide),
    )


def request_of_child(row: GroupRow) -> GangRequest:
    """What a child that waits by itself asks for: its share; where the backup of a restored fleet does not know that,
    an even one."""
    assert row.child is not None
    if row.child.share:
        return row.request
    share = even_share(row.child.replicas, row.child.of, row.child.number)
    return sized(row.request, min(share, row.request.pods))
