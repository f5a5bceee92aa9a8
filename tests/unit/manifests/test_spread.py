"""Which manifests can be spread over clusters, and which field is named of one that cannot; limits at n and n + 1."""

from __future__ import annotations

import json
from typing import Any

import pytest

from federation.core.spreads import children_of
from federation.manifests import dialects
from federation.manifests.faults import BAD_MANIFEST, fault_of
from placement.model import LABELS_MAX, SPREAD_CLUSTERS_MAX, Divide, PodGroup, UnreadableGroupError, read_pod_group

SPREAD: dict[str, Any] = {"clusters": {"min": 2, "max": 3}, "min_per_cluster": 2}


def manifest(*, spread: Any = SPREAD, count: int = 9, role: Any = None, **fields: Any) -> dict[str, Any]:
    """A spread group as the API takes it, with `fields` of it or of its `role` otherwise."""
    return {"name": "web", "roles": [{"count": count, "template": {}} | (role or {})], "spread": spread} | fields


def taken(**fields: Any) -> PodGroup:
    return dialects.read_group(manifest(**fields))


def refusal(**fields: Any) -> tuple[str, str]:
    with pytest.raises(BAD_MANIFEST) as refused:
        taken(**fields)
    fault = fault_of(refused.value)
    return fault.field, fault.detail.partition(": ")[2]


def test_what_is_not_said_has_a_default_and_a_number_of_clusters_means_exactly_so_many() -> None:
    spread = taken(spread={"clusters": 3}).spread
    assert spread is not None
    assert (spread.clusters.min, spread.clusters.max) == (3, 3)
    assert (spread.min_per_cluster, spread.max_per_cluster, spread.divide) == (1, None, Divide.EVEN)


@pytest.mark.parametrize(
    ("fields", "field", "why"),
    [
        ({"spread": {"clusters": {"min": 3, "max": 2}}}, "spread.clusters.min", "min 3 is above max 2"),
        (
            {"spread": {"clusters": 2, "min_per_cluster": 4, "max_per_cluster": 3}},
            "spread.min_per_cluster",
            "min_per_cluster 4 is above max_per_cluster 3",
        ),
        (
            {"spread": {"clusters": 5, "min_per_cluster": 2}},
            "spread.min_per_cluster",
            "5 clusters with 2 each are more than the 9 replicas",
        ),
        (
            {"spread": {"clusters": 2, "max_per_cluster": 4}},
            "spread.max_per_cluster",
            "2 clusters with 4 each are fewer than the 9 replicas",
        ),
        (
            {"count": 5, "spread": {"clusters": {"min": 1, "max": 9}, "min_per_cluster": 2, "max_per_cluster": 2}},
            "spread.max_per_cluster",
            "2 clusters with 2 each are fewer than the 5 replicas",
        ),
        (
            {"roles": [{"name": "a", "template": {}}, {"name": "b", "template": {}}]},
            "roles",
            "a spread group has one role, these are 2",
        ),
        ({"workload": "job"}, "spread", "a Job runs in one cluster; say its pods as a role"),
        ({"elastic": True}, "elastic", "a spread group has all of its replicas or none"),
        ({"min_count": 4}, "min_count", "of a spread group, say spread.min_per_cluster"),
        ({"role": {"min_count": 4}}, "min_count", "of a spread group, say spread.min_per_cluster"),
        (
            {"role": {"topology": {"required": "host", "slice": 3}}},
            "roles",
            "the replicas of a spread group are divided one by one, not by slices",
        ),
        (
            {"labels": {"muster.io/spread": "other"}},
            "labels",
            f"at most {LABELS_MAX - 1}, and not muster.io/spread, which its children get",
        ),
    ],
)
def test_what_cannot_be_spread_is_refused_by_field(fields: dict[str, Any], field: str, why: str) -> None:
    found, detail = refusal(**fields)
    assert found == field
    assert detail.startswith(why)


def test_clusters_are_limited() -> None:
    most = {"clusters": SPREAD_CLUSTERS_MAX}
    assert len(children_of(taken(count=SPREAD_CLUSTERS_MAX, spread=most))) == 64
    assert refusal(spread={"clusters": SPREAD_CLUSTERS_MAX + 1})[0] == "spread.clusters.min"


@pytest.mark.parametrize(("clusters", "longest"), [(3, 61), (12, 60)])
def test_names_leave_room_for_those_of_the_children(clusters: int, longest: int) -> None:
    group = taken(name="a" * longest, count=12, spread={"clusters": clusters})
    assert max(len(child.name) for child in children_of(group)) == 63
    assert refusal(name="a" * (longest + 1), count=12, spread={"clusters": clusters})[0] == "name"


def test_labels_leave_room_for_the_childrens_own() -> None:
    labels = {f"key-{number}": "" for number in range(LABELS_MAX - 1)}
    assert len(children_of(taken(labels=labels))[0].labels) == LABELS_MAX
    assert refusal(labels=labels | {"one-more": ""})[0] == "labels"


def test_a_child_asks_for_the_most_that_it_may_get_and_for_the_floor() -> None:
    wide = children_of(taken(count=9))
    assert [(child.name, child.roles[0].count, child.min_count) for child in wide] == [
        ("web-1", 7, 2),
        ("web-2", 7, 2),
        ("web-3", 7, 2),
    ]
    capped = children_of(taken(count=9, spread=SPREAD | {"max_per_cluster": 4}))
    assert [child.roles[0].count for child in capped] == [4, 4, 4]


def test_there_is_no_child_that_the_floor_has_no_replicas_for() -> None:
    assert len(children_of(taken(count=9, spread={"clusters": {"min": 1, "max": 9}, "min_per_cluster": 4}))) == 2


def test_a_child_is_read_back_from_its_own_manifest() -> None:
    child = children_of(taken())[2]
    assert PodGroup.model_validate_json(child.model_dump_json(exclude_defaults=True)) == child


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"spread": None}, "a child says what it is a child of: spread is missing"),
        ({"elastic": True}, "a child has one role of pods, and is not elastic"),
        ({"workload": "job"}, "a child has one role of pods, and is not elastic"),
        ({"child": {"name": "web", "number": 4, "of": 3, "replicas": 9}}, "number 4 is above of 3"),
    ],
    ids=["of nothing", "elastic", "a Job", "beyond the last"],
)
def test_what_comes_back_as_a_child_and_can_be_none_is_not_read(fields: dict[str, Any], why: str) -> None:
    kept = children_of(taken())[0].model_dump(mode="json", exclude_defaults=True)
    with pytest.raises(UnreadableGroupError, match=why):
        read_pod_group(json.dumps(kept | fields).encode())
