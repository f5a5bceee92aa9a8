"""The worked example of docs/engine.md, worked out."""

from __future__ import annotations

import numpy as np

from placement.engine import decide
from placement.mix import ClassMix, PodKind
from placement.node_order import LOOK_GPUS_MIN
from placement.node_states import NodeStates
from placement.scarcity import SCARCITY_MAX
from placement.score import GAIN_MIN, Policy
from placement.sites import PRICE_LABEL
from placement.worth import NodePolicy, Worth, gains, order_costs
from tests.builders import BUDGET, cluster, fleet, gang, nodes
from tests.documents import ROOT, table

NODES = 1_000
FREE = ((1000, 1000), (190, 1000), (600, 600))
ARRIVING = PodKind(4_000, 1, 190, ())


def worked_out(policy: NodePolicy) -> tuple[list[int], list[int], list[int]]:
    """What each node is worth, the order's cost, and what it gains, in milli GPU."""
    mix = ClassMix()
    mix.arrived(PodKind(12_000, 1, 810, ()), 20)
    mix.arrived(PodKind(4_000, 1, 190, ()), 5)
    mix.arrived(PodKind(8_000, 2, 1000, ()), 5)
    mix.arrived(PodKind(2_000, 0, 0, ()), 10)
    worth = Worth(mix, ("T4",), policy)
    states = NodeStates(np.zeros(3, dtype=np.int64), np.full(3, 40_000), np.array(FREE).T)
    found = (worth.of(states), order_costs(worth, NODES)[:3], gains(worth, states, ARRIVING))
    return tuple((one / worth.scale).round().astype(int).tolist() for one in found)  # type: ignore[return-value]


def test_worked_example_says_what_the_code_does() -> None:
    hosted, _, hosted_gain = worked_out(NodePolicy(shares_weight=0))
    shares, _, shares_gain = worked_out(NodePolicy(hosted_weight=0))
    _, order, gain = worked_out(NodePolicy())
    rows = [tuple(int(cell) for cell in row[1:]) for row in table(ROOT / "docs" / "engine.md", "free milli")]
    assert rows == [
        (
            hosted[at],
            shares[at],
            order[at],
            hosted[at] + hosted_gain[at],
            shares[at] + shares_gain[at],
            gain[at] - order[at],
        )
        for at in range(3)
    ]


def test_worked_example_of_clusters_says_what_the_code_does() -> None:
    labels = {"asia": {PRICE_LABEL: "180"}, "eu": {PRICE_LABEL: "230", "data.muster.io/laion": ""}, "us": {}}
    labels["us"] = {PRICE_LABEL: "200"}
    free = {"asia": 16, "eu": 32, "us": 64}
    where = fleet(*(cluster(name, nodes(128, free=free[name]), labels=labels[name]) for name in free))
    item = gang("train", pods=2, data=(("laion", 500),))
    (place,) = decide(where, [item], policy=Policy(), budget=BUDGET).decisions
    found = {one.cluster: (dict(one.terms), one.score) for one in place.candidates}
    terms = ("overflow", "price", "data_missing", "used_after")
    expected = [(name, *(found[name][0].get(term, 0) for term in terms), found[name][1]) for name in found]
    rows = table(ROOT / "docs" / "engine.md", "cluster")
    assert [(row[0], *(int(cell) for cell in row[1:])) for row in rows] == expected
    assert place.cluster == "eu"


def test_weights_in_the_page_are_those_of_the_policy() -> None:
    rows = {row[0]: int(row[1]) for row in table(ROOT / "docs" / "engine.md", "term")}
    policy = NodePolicy()
    assert rows == {
        "hosted": policy.hosted_weight,
        "shares": policy.shares_weight,
        "order": policy.order_weight,
    }
    text = (ROOT / "docs" / "engine.md").read_text(encoding="utf-8")
    assert f"`scarcity_power` ({policy.scarcity_power})" in text
    assert f"most {SCARCITY_MAX:,} times" in text
    assert f"(at least {LOOK_GPUS_MIN})" in text


def test_score_terms_in_the_page_are_those_of_the_policy() -> None:
    rows = {row[0]: int(row[1]) for row in table(ROOT / "docs" / "engine.md", "score term")}
    policy = Policy()
    assert rows == {
        "overflow": -policy.overflow_weight,
        "preferred_met": policy.preferred_met_weight,
        "gain": policy.gain_weight,
        "price": -policy.price_weight,
        "carbon": -policy.carbon_weight,
        "data_missing": -policy.data_missing_weight,
        "failure_spread": -policy.failure_spread_weight,
        "used_after": policy.used_after_weight,
    }
    text = (ROOT / "docs" / "engine.md").read_text(encoding="utf-8")
    assert f"1 where {policy.overflow_mark // 100} % or more" in text
    assert f"not below {GAIN_MIN} |" in text
