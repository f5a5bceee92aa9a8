"""Which PodGroups can be spread over clusters: asked while one is validated, with its limits.

Below `placement.model`, which asks; what a spread means is in `placement.spread`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from placement.model import PodGroup, Spread, SpreadChild

SPREAD_LABEL: Final = "muster.io/spread"  # of the children of a spread group; the value is its name


def spread_faults(
    group: PodGroup, spread: Spread, *, name_chars_max: int, labels_max: int
) -> Iterator[tuple[str, str]]:
    """What keeps a group from being spread: the field, and why; the first counts."""
    replicas, least, most = group.roles[0].count, spread.min_per_cluster, spread.max_per_cluster
    children = min(spread.clusters.max, replicas // least)
    name_max = name_chars_max - len(f"-{spread.clusters.max}")
    if len(group.roles) > 1:
        yield "roles", f"a spread group has one role, these are {len(group.roles)}"
    if group.workload != "pods":
        yield "spread", "a Job runs in one cluster; say its pods as a role"
    if group.elastic:
        yield "elastic", "a spread group has all of its replicas or none"
    if group.min_count is not None or group.roles[0].min_count is not None:
        yield "min_count", "of a spread group, say spread.min_per_cluster"
    if group.roles[0].topology.slice is not None:
        yield "roles", "the replicas of a spread group are divided one by one, not by slices"
    if spread.clusters.min * least > replicas:
        floors = f"{spread.clusters.min} clusters with {least} each"
        yield "spread.min_per_cluster", f"{floors} are more than the {replicas} replicas"
    if most is not None and children * most < replicas:
        tops = f"{children} clusters with {most} each"
        yield "spread.max_per_cluster", f"{tops} are fewer than the {replicas} replicas"
    if len(group.name) > name_max:
        why = f"the name has {len(group.name)} characters, at most {name_max} leave room for those of its children"
        yield "name", why
    if len(group.labels) >= labels_max or SPREAD_LABEL in group.labels:
        yield "labels", f"at most {labels_max - 1}, and not {SPREAD_LABEL}, which its children get"


def child_faults(group: PodGroup, child: SpreadChild) -> Iterator[tuple[str, str]]:
    """The same of a child, which comes from the server, or back from the cluster that kept it."""
    if group.spread is None:
        yield "child", "a child says what it is a child of: spread is missing"
    if len(group.roles) > 1 or group.elastic or group.workload != "pods":
        yield "child", "a child has one role of pods, and is not elastic"
    if child.number > child.of:
        yield "child.number", f"number {child.number} is above of {child.of}"
