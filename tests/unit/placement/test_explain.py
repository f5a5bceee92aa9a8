"""Why a group waits, and what would let it start."""

from __future__ import annotations

from dataclasses import replace

from placement.engine import Pending
from placement.explain import NOBODY, Ahead, ClusterAnswer, Explanation, QuotaAnswer, why
from placement.fleet import Fleet
from placement.model import Because, ClusterName, QueueName, Reason
from placement.quota import UNLIMITED, QuotaLine, Quotas
from placement.score import DEFAULT_POLICY
from tests.builders import clique, cluster, fleet, gang, node, nodes, role


def explain(where: Fleet, item: Pending, *, ahead: Ahead = NOBODY, quotas: Quotas = UNLIMITED) -> Explanation:
    return why(where, item, ahead, quotas, DEFAULT_POLICY)


def test_each_cluster_says_what_stands_in_the_way_with_quantities() -> None:
    where = fleet(
        cluster("full", nodes(64, free=48)),
        cluster("shut", nodes(64), cordoned=True),
        cluster("small", nodes(16)),
    )

    found = explain(where, gang("train", pods=8, products=("A100",)))

    assert [(one.cluster, [str(because) for because in one.because]) for one in found.clusters] == [
        ("full", ["InsufficientGpus: needs 64 free A100 GPUs, best is 48"]),
        ("shut", ["ClusterCordoned"]),
        ("small", ["LargerThanCluster: needs 8 pods of 8 A100 GPUs, best is 2 (role worker)"]),
    ]


def test_the_reason_shown_first_is_the_one_closest_to_a_start() -> None:
    where = fleet(cluster("full", nodes(64, free=48)), cluster("shut", nodes(64), cordoned=True))
    assert explain(where, gang("train", pods=8)).summary == "InsufficientGpus: needs 64 free GPUs, best is 48"


def test_group_that_fits_and_is_first_starts_with_the_next_decision() -> None:
    found = explain(fleet(eu=64), gang("train", pods=8))
    assert found.because is None
    assert found.summary == "starts with the next decision in eu"
    assert found.change == "none: it starts in eu with the next decision"
    assert found.clusters == (ClusterAnswer(found.clusters[0].cluster, ()),)


def test_group_starts_where_the_cluster_that_refused_it_last_is_passed_over() -> None:
    """As the engine does: only where no other cluster holds it."""
    refused = replace(gang("train"), shunned=(ClusterName("eu"),))
    found = explain(fleet(eu=8, us=64), refused)
    assert (found.would_fit, [one.cluster for one in found.candidates]) == ("us", ["us"])
    assert explain(fleet(eu=8), refused).would_fit == "eu"


def test_of_clusters_that_all_failed_the_group_the_last_is_taken_last() -> None:
    where, lost = fleet(eu=8, us=16, asia=64), gang("train")
    names = ("eu", "us", "asia")
    for count, best in enumerate(("eu", "us", "asia", "us")):
        item = replace(lost, shunned=tuple(map(ClusterName, names[:count])))
        assert explain(where, item).would_fit == best


def test_group_that_fits_behind_others_says_how_many_are_decided_first() -> None:
    found = explain(fleet(eu=64), gang("train"), ahead=Ahead(2, 1))

    assert found.because == Because(Reason.QUEUED_BEHIND, detail="2 groups are decided first")
    assert (found.ahead_count, found.ahead_in_queue_count) == (2, 1)


def test_quota_line_shows_limit_use_and_need() -> None:
    quotas = {QueueName("default"): {"A100": QuotaLine(16, used=8)}}

    found = explain(fleet(eu=64), gang("train", pods=2), quotas=quotas)

    assert found.quota == (QuotaAnswer("A100", limit=16, used=8, needs=16),)
    assert str(found.because) == "QuotaExhausted: needs 16 A100 GPUs, best is 8 (queue default: limit 16, used 8)"


def test_smallest_change_for_quota_names_the_missing_amount() -> None:
    quotas = {QueueName("default"): {"*": QuotaLine(16, used=8)}}
    found = explain(fleet(eu=64), gang("train", pods=2), quotas=quotas)
    assert found.change == "raise the quota of queue default by 8 GPUs"


def test_smallest_change_names_the_cluster_with_the_fewest_gpus_to_free() -> None:
    where = fleet(cluster("eu-1", nodes(64, free=32)), cluster("eu-2", nodes(64, free=48)))
    assert explain(where, gang("train", pods=8, products=("A100",))).change == "free 16 A100 GPUs in eu-2"


def test_smallest_change_counts_whole_pods_on_single_nodes() -> None:
    where = fleet(cluster("eu", node("a", free=5), node("b", free=6)))
    assert explain(where, gang("train", pods=1)).change == "free 2 GPUs in eu"


def test_smallest_change_counts_every_further_pod_of_a_node() -> None:
    where = fleet(cluster("eu", node("a", free=1)))
    assert explain(where, gang("train", pods=3, gpus=2)).change == "free 5 GPUs in eu"


def test_smallest_change_stays_within_one_clique() -> None:
    where = fleet(cluster("eu", clique("c1", 32, free=16), clique("c2", 32, free=24)))
    assert explain(where, gang("train", pods=4, level="clique")).change == "free 8 GPUs in one clique of eu"


def test_uncordoning_is_proposed_before_anybody_has_to_stop() -> None:
    where = fleet(cluster("full", nodes(64, free=0)), cluster("shut", nodes(64), cordoned=True))
    assert explain(where, gang("train")).change == "uncordon shut"


def test_closed_and_full_cluster_needs_both_changes() -> None:
    where = fleet(cluster("shut", nodes(64, free=56), cordoned=True))
    assert explain(where, gang("train", pods=8)).change == "uncordon shut and free 8 GPUs in shut"


def test_missing_quota_and_missing_room_are_both_named() -> None:
    quotas = {QueueName("default"): {"*": QuotaLine(8)}}
    found = explain(fleet(cluster("eu", nodes(64, free=8))), gang("train", pods=2), quotas=quotas)
    assert found.change == "raise the quota of queue default by 8 GPUs and free 8 GPUs in eu"


def test_group_too_large_for_every_cluster_is_told_to_change_the_request() -> None:
    assert explain(fleet(eu=64), gang("train", pods=9)).change == (
        "change the request: LargerThanCluster: needs 9 pods of 8 GPUs, best is 8 (role worker)"
    )


def test_missing_cpu_is_named_as_such() -> None:
    where = fleet(cluster("eu", node("a")._replace(cpu_milli_free=4000)))
    item = gang("train", roles=(role(pods=2, gpus=4, cpu_milli=3000),))
    assert explain(where, item).change == (
        "free CPU in eu (InsufficientCpu: needs 2 pods of 4 GPUs with 3000m CPU each, best is 1)"
    )


def test_pod_with_more_cpu_than_any_node_is_told_so() -> None:
    item = gang("train", roles=(role(pods=1, gpus=4, cpu_milli=65_000),))
    assert explain(fleet(eu=8), item).change == (
        "change the request: LargerThanCluster: needs 1 pods of 4 GPUs with 65000m CPU, best is 0 (role worker)"
    )


def test_without_any_cluster_the_change_is_to_join_one() -> None:
    found = explain(fleet(), gang("train"))
    assert found.summary == "ClusterNotAdmitted (no cluster has joined)"
    assert found.change == "join a cluster"
