"""The engine's decisions, read as a specification."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from placement.engine import Candidate, decide
from placement.fleet import ClusterView
from placement.model import Because, ClusterName, QueueName, Reason
from placement.quota import QuotaLine, Quotas
from placement.score import DEFAULT_POLICY, Policy, rank
from tests.builders import (
    BUDGET,
    clique,
    cluster,
    decision,
    decisions,
    fleet,
    gang,
    node,
    nodes,
    on,
    role,
    waits,
)


def quota(queue: str = "default", **limits: int) -> Quotas:
    """Limits by product; `all` stands for all products together."""
    return {
        QueueName(queue): {
            ("*" if product == "all" else product): QuotaLine(limit) for product, limit in limits.items()
        }
    }


# --- which cluster ----------------------------------------------------------------------------------------------------


def test_gang_goes_to_the_tightest_cluster_that_holds_all_of_it() -> None:
    assert decision(fleet(eu=512, us=64), gang("train", pods=8)) == on("us")


def test_gang_goes_to_the_cluster_that_is_fullest_with_it() -> None:
    where = fleet(cluster("empty", nodes(64)), cluster("half", nodes(128, free=64)))
    assert decision(where, gang("train")) == on("half")


def test_of_equally_full_clusters_the_first_by_name_is_taken() -> None:
    assert decision(fleet(us=64, eu=64), gang("train")) == on("eu")


def test_candidates_of_equal_score_are_ranked_by_name() -> None:
    names = [ClusterName("us"), ClusterName("asia"), ClusterName("eu")]
    assert [one.cluster for one in rank(Candidate(name, 5, ()) for name in names)] == ["asia", "eu", "us"]


def test_fullness_counts_only_gpus_that_the_gang_could_use() -> None:
    where = fleet(
        cluster("a", nodes(64, product="A100", free=0, prefix="x"), nodes(64, product="H100", prefix="y")),
        cluster("b", nodes(64, product="H100", free=32)),
    )
    assert decision(where, gang("train", products=("H100",))) == on("b")


def test_gang_without_gpus_goes_where_cpus_are_used_most() -> None:
    busy = node("n", gpus=0)._replace(cpu_milli_free=32_000)
    where = fleet(cluster("a", node("n", gpus=0)), cluster("b", busy))
    assert decision(where, gang("prepare", roles=(role(gpus=0, cpu_milli=1000),))) == on("b")


def test_preferred_topology_outweighs_fullness() -> None:
    where = fleet(
        cluster("full", clique("a", 16, free=8), clique("b", 16, free=8)),
        cluster("wide", clique("a", 64)),
    )
    assert decision(where, gang("train", pods=2, level_preferred="clique")) == on("wide")
    assert decision(where, gang("train", pods=2)) == on("full")


def test_weights_are_policy() -> None:
    where = fleet(cluster("a", nodes(64)), cluster("b", nodes(64, free=32)))
    spread = Policy(version=7, used_after_weight=-1)
    assert decisions(where, gang("train"), policy=spread) == {"train": on("a")}


def test_decision_keeps_the_three_best_clusters_with_their_terms() -> None:
    plan = decide(fleet(a=64, b=32, c=16, d=128, e=8), [gang("train", pods=2)], policy=DEFAULT_POLICY, budget=BUDGET)

    (place,) = plan.decisions
    assert place.candidates == (
        Candidate(ClusterName("c"), 10_000, (("used_after", 10_000), ("preferred_met", 0))),
        Candidate(ClusterName("b"), 5_000, (("used_after", 5_000), ("preferred_met", 0))),
        Candidate(ClusterName("a"), 2_500, (("used_after", 2_500), ("preferred_met", 0))),
    )
    assert place.refused == ((Reason.LARGER_THAN_CLUSTER, 1),)
    assert [(part.node, part.pods) for part in place.assignment.parts] == [("n000", 1), ("n001", 1)]


# --- filters ----------------------------------------------------------------------------------------------------------

GATES = {
    "not admitted": (cluster("eu", nodes(64), admitted=False), Reason.CLUSTER_NOT_ADMITTED),
    "fenced": (cluster("eu", nodes(64), fenced=True), Reason.CLUSTER_FENCED),
    "silent": (cluster("eu", nodes(64), silent=True), Reason.CLUSTER_SILENT),
    "cordoned": (cluster("eu", nodes(64), cordoned=True), Reason.CLUSTER_CORDONED),
    "failing": (cluster("eu", nodes(64), tripped=True, tried_in_s=42.0), Reason.CLUSTER_FAILING),
    "full of groups": (cluster("eu", nodes(64), groups_left=0), Reason.TOO_MANY_GROUPS),
    "stale": (cluster("eu", nodes(64), stale=True, view_age_s=31.4), Reason.VIEW_STALE),
}


@pytest.mark.parametrize(("view", "reason"), GATES.values(), ids=GATES.keys())
def test_nothing_is_placed_in_a_cluster_that_is_closed(view: ClusterView, reason: Reason) -> None:
    assert decision(fleet(view), gang("train")) == waits(reason)
    assert decision(fleet(view, us=64), gang("train")) == on("us")


def test_a_cluster_gets_no_more_groups_than_its_agent_answers_for() -> None:
    """What came beyond waited there, placed, while others had room."""
    where = fleet(cluster("a", nodes(64), groups_left=2), b=128)
    asked = [gang(name, gpus=1) for name in ("g1", "g2", "g3")]
    assert decisions(where, *asked) == {"g1": on("a"), "g2": on("a"), "g3": on("b")}
    alone = fleet(cluster("a", nodes(64), groups_left=2))
    assert decisions(alone, *asked) == {"g1": on("a"), "g2": on("a"), "g3": waits(Reason.TOO_MANY_GROUPS)}


def test_a_cluster_that_is_to_be_tried_with_one_group_gets_one() -> None:
    where = fleet(cluster("a", nodes(64), half_open=True, groups_left=1))
    asked = [gang(name, gpus=1) for name in ("g1", "g2")]
    assert decisions(where, *asked) == {"g1": on("a"), "g2": waits(Reason.CLUSTER_FAILING)}


def test_of_clusters_that_all_failed_the_group_the_last_is_taken_last() -> None:
    names = tuple(map(ClusterName, ("eu", "us", "asia")))
    for count, best in enumerate(("eu", "us", "asia", "us")):
        assert decision(fleet(eu=8, us=16, asia=64), replace(gang("train"), shunned=names[:count])) == on(best)
    assert decision(fleet(eu=8), replace(gang("train"), shunned=names)) == on("eu")


def test_cluster_labels_select_and_exclude() -> None:
    where = fleet(
        cluster("eu-1", nodes(64), labels={"region": "eu", "cloud": "a"}),
        cluster("us-1", nodes(64), labels={"region": "us", "cloud": "a"}),
        cluster("us-2", nodes(64), labels={"region": "us", "cloud": "b"}),
    )
    assert decision(where, gang("train", cluster_labels=(("region", ("us", "asia")),))) == on("us-1")
    assert decision(where, gang("train", cluster_labels_not=(("cloud", ("a",)),))) == on("us-2")
    assert decision(where, gang("train", cluster_labels=(("region", ("asia",)),))) == waits(Reason.CLUSTER_NOT_WANTED)


def test_only_clusters_of_an_accepted_lease_class_are_used() -> None:
    where = fleet(cluster("a", nodes(64), lease_class="fast"), cluster("b", nodes(64), lease_class="careful"))
    assert decision(where, gang("train", lease_classes=("careful",))) == on("b")
    assert decision(where, gang("train", lease_classes=("default",))) == waits(Reason.LEASE_CLASS_NOT_ACCEPTED)


def test_cluster_that_refused_the_group_lately_is_avoided() -> None:
    assert decision(fleet(a=64, b=128), gang("train", avoid=["a"])) == on("b")
    assert decision(fleet(a=64), gang("train", avoid=["a"])) == waits(Reason.REFUSED_LATELY)


def test_cluster_that_refused_an_equal_request_lately_is_avoided() -> None:
    item = gang("train", pods=2)
    where = fleet(cluster("a", nodes(16), refused_lately=frozenset({item.request})), b=128)
    assert decision(where, item) == on("b")
    assert decision(where, gang("other", pods=1)) == on("a")


def test_wait_counts_the_clusters_per_reason_and_shows_the_nearest() -> None:
    where = fleet(
        cluster("a", nodes(64, free=8)),
        cluster("b", nodes(64, free=56)),
        cluster("c", nodes(64), cordoned=True),
        cluster("d", nodes(8)),
    )
    plan = decide(where, [gang("train", pods=8)], policy=DEFAULT_POLICY, budget=BUDGET)

    (wait,) = plan.waiting
    assert wait.because == Because(Reason.INSUFFICIENT_GPUS, needs=64, best=56, unit="free GPUs")
    assert wait.refused == (
        (Reason.INSUFFICIENT_GPUS, 2),
        (Reason.CLUSTER_CORDONED, 1),
        (Reason.LARGER_THAN_CLUSTER, 1),
    )


def test_without_clusters_everything_waits() -> None:
    assert decision(fleet(), gang("train")) == waits(Reason.CLUSTER_NOT_ADMITTED)


# --- fit --------------------------------------------------------------------------------------------------------------


def test_gang_one_pod_too_large_waits_whole() -> None:
    assert decision(fleet(eu=64), gang("train", pods=9)) == waits(Reason.LARGER_THAN_CLUSTER)


def test_gang_that_needs_one_clique_waits_although_the_cluster_has_room() -> None:
    where = fleet(cluster("eu", clique("a", 32), clique("b", 32)))
    assert decision(where, gang("train", pods=5, level="clique")) == waits(Reason.NO_CLIQUE_LARGE_ENOUGH)


def test_room_spread_over_two_clusters_holds_no_gang() -> None:
    assert decision(fleet(eu=32, us=32), gang("train", pods=8)) == waits(Reason.LARGER_THAN_CLUSTER)


# --- order ------------------------------------------------------------------------------------------------------------


def test_higher_priority_is_served_first() -> None:
    where = fleet(eu=8)
    assert decisions(where, gang("old", at=1), gang("urgent", at=2, priority=1)) == {
        "urgent": on("eu"),
        "old": waits(Reason.INSUFFICIENT_GPUS),
    }


def test_within_a_priority_the_older_is_served_first() -> None:
    assert decisions(fleet(eu=8), gang("young", at=9), gang("old", at=1)) == {
        "old": on("eu"),
        "young": waits(Reason.INSUFFICIENT_GPUS),
    }


def test_groups_of_one_cycle_share_what_is_free() -> None:
    found = decisions(fleet(eu=32), *(gang(f"g{n}", pods=2, at=n) for n in range(1, 4)))
    assert found == {"g1": on("eu"), "g2": on("eu"), "g3": waits(Reason.INSUFFICIENT_GPUS)}


def test_smaller_group_behind_one_that_does_not_fit_is_placed() -> None:
    found = decisions(fleet(eu=16), gang("large", pods=3, at=1), gang("small", pods=2, at=2))
    assert found == {"large": waits(Reason.LARGER_THAN_CLUSTER), "small": on("eu")}


def test_a_group_waits_only_once() -> None:
    with pytest.raises(AssertionError, match="waits once"):
        decisions(fleet(eu=8), gang("twice"), gang("twice"))


# --- quota ------------------------------------------------------------------------------------------------------------


def test_queue_within_its_quota_is_placed_and_one_gpu_beyond_waits() -> None:
    assert decision(fleet(eu=64), gang("train", pods=2), quotas=quota(all=16)) == on("eu")
    assert decision(fleet(eu=64), gang("train", pods=2), quotas=quota(all=15)) == waits(Reason.QUOTA_EXHAUSTED)


def test_quota_counts_what_this_cycle_already_placed() -> None:
    found = decisions(fleet(eu=64), gang("first", at=1), gang("second", at=2), quotas=quota(all=8))
    assert found == {"first": on("eu"), "second": waits(Reason.QUOTA_EXHAUSTED)}


def test_quota_of_one_queue_does_not_bind_another() -> None:
    found = decisions(fleet(eu=64), gang("a", queue="red"), gang("b", queue="blue"), quotas=quota("red", all=0))
    assert found == {"a": waits(Reason.QUOTA_EXHAUSTED), "b": on("eu")}


def test_gang_that_may_run_on_a_limited_product_is_charged_for_it() -> None:
    where = fleet(cluster("eu", nodes(64, product="H100")))
    limits = quota(H100=8)
    assert decision(where, gang("named", pods=2, products=("H100",)), quotas=limits) == waits(Reason.QUOTA_EXHAUSTED)
    assert decision(where, gang("any", pods=2), quotas=limits) == waits(Reason.QUOTA_EXHAUSTED)


def test_gang_on_other_products_is_not_charged_for_a_limited_one() -> None:
    assert decision(fleet(eu=64), gang("train", products=("A100",)), quotas=quota(H100=0)) == on("eu")


def test_used_quota_counts_and_quotas_are_left_as_they_were() -> None:
    lines = {QueueName("default"): {"*": QuotaLine(16, used=8)}}
    assert decisions(fleet(eu=64), gang("a", at=1), gang("b", at=2), quotas=lines) == {
        "a": on("eu"),
        "b": waits(Reason.QUOTA_EXHAUSTED),
    }
    assert lines == {QueueName("default"): {"*": QuotaLine(16, used=8)}}


def test_queue_already_beyond_a_lowered_quota_waits() -> None:
    lines = {QueueName("default"): {"*": QuotaLine(8, used=16)}}
    plan = decide(fleet(eu=64), [gang("train")], policy=DEFAULT_POLICY, budget=BUDGET, quotas=lines)
    assert str(plan.waiting[0].because) == "QuotaExhausted: needs 8 GPUs, best is 0 (queue default: limit 8, used 16)"


def test_gang_without_gpus_needs_no_quota() -> None:
    item = gang("prepare", roles=(role(gpus=0, cpu_milli=1000),))
    assert decision(fleet(eu=8), item, quotas=quota(all=0)) == on("eu")


# --- cost and purity --------------------------------------------------------------------------------------------------


def test_cycle_ends_when_its_budget_of_evaluations_is_spent() -> None:
    waiting = [gang("a", pods=1, at=1), gang("b", pods=2, at=2), gang("c", pods=3, at=3)]
    plan = decide(fleet(eu=128, us=128), waiting, policy=DEFAULT_POLICY, budget=4)
    assert [place.uid for place in plan.decisions] == ["a", "b"]
    assert (plan.evaluations, plan.exhausted) == (4, True)


def test_budget_that_suffices_is_not_called_exhausted() -> None:
    plan = decide(fleet(eu=128, us=128), [gang("a")], policy=DEFAULT_POLICY, budget=2)
    assert (plan.evaluations, plan.exhausted) == (2, False)


def test_equal_requests_that_failed_are_not_tried_again_in_the_cycle() -> None:
    waiting = [gang(f"g{n}", pods=9, at=n) for n in range(1, 101)]
    plan = decide(fleet(eu=64, us=64), waiting, policy=DEFAULT_POLICY, budget=BUDGET)
    assert len(plan.waiting) == 100
    assert plan.evaluations == 2


def test_equal_requests_ask_only_the_cluster_that_changed() -> None:
    waiting = [gang(f"g{n}", at=n) for n in range(1, 11)]
    plan = decide(fleet(a=128, b=128, c=128), waiting, policy=DEFAULT_POLICY, budget=BUDGET)
    assert len(plan.decisions) == 10
    assert plan.evaluations == 3 + 9


def test_group_that_avoids_a_cluster_is_still_tried_elsewhere_after_an_equal_one_failed() -> None:
    found = decisions(fleet(a=8), gang("shy", at=1, avoid=["a"]), gang("bold", at=2))
    assert found == {"shy": waits(Reason.REFUSED_LATELY), "bold": on("a")}


def test_the_fleet_is_left_as_it_was() -> None:
    where = fleet(eu=64, us=64)
    before = {name: list(view.table.rows()) for name, view in where.items()}
    decide(where, [gang(f"g{n}", at=n) for n in range(1, 20)], policy=DEFAULT_POLICY, budget=BUDGET)
    assert {name: list(view.table.rows()) for name, view in where.items()} == before


def test_plan_carries_the_version_of_its_policy() -> None:
    assert decide(fleet(), [], policy=Policy(version=7), budget=1).policy_version == 7


SCENARIO = """
from tests.builders import clique, cluster, fleet, gang, nodes
from placement.engine import decide
from placement.score import DEFAULT_POLICY

where = fleet(
    cluster("c1", clique("a", 32), clique("b", 32, free=8), labels={"region": "eu", "cloud": "x"}),
    cluster("c2", nodes(64, product="H100"), labels={"region": "us", "cloud": "y"}),
    eu=64, us=64,
)
waiting = [
    gang(f"g{n}", pods=n % 3 + 1, gpus=2, products=("H100", "A100")[: n % 3], avoid=["eu", "us"][: n % 4], at=n // 9)
    for n in range(1, 60)
]
print(decide(where, waiting, policy=DEFAULT_POLICY, budget=200))
"""


def plan_under(hash_seed: str) -> str:
    root = Path(__file__).parents[3]
    environment = {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", SCENARIO], capture_output=True, text=True, check=True, env=environment, cwd=root
    )
    return done.stdout


@pytest.mark.long
def test_equal_inputs_give_an_equal_plan_under_any_hash_seed() -> None:
    first = plan_under("1")
    assert first.count("Place(") > 10
    assert first == plan_under("2")
