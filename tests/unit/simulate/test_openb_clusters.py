"""The exam over several clusters: how nodes are shared out, and what an old view costs."""

from __future__ import annotations

import pytest

from federation.simulate.openb import Arrival, Exam, FleetShape, PolicyName, play
from federation.simulate.openb_arrivals import node_order
from federation.simulate.openb_clusters import Federated, Split, split
from tests.unit.simulate.openb_lists import nodes, pods


def test_clusters_get_equal_shares_of_gpus() -> None:
    shared, cluster_of = split(node_order(nodes(90), 42), 6, Split.RANDOM)
    gpus = [sum(node.gpus for node, at in zip(shared, cluster_of, strict=True) if at == one) for one in range(6)]
    assert sum(gpus) == 420
    assert all(62 <= one <= 78 for one in gpus)  # 70, give or take a node


def test_clusters_split_by_model_hold_few_models_each() -> None:
    shared, cluster_of = split(node_order(nodes(90), 42), 6, Split.MODEL)
    models = [{node.model for node, at in zip(shared, cluster_of, strict=True) if at == one} for one in range(6)]
    assert sum(len(one) for one in models) <= 6 + 2  # three models: two clusters lie across a border


def fates(fleet: FleetShape | None, name: PolicyName = PolicyName.MUSTER) -> tuple[list[Arrival], Federated | None]:
    exam = Exam(nodes(30), pods(200), fleet=fleet)
    pool, policy = exam.start(name, 42)
    found = list(play(exam, pool, policy, 42))
    return found, policy if isinstance(policy, Federated) else None


@pytest.mark.parametrize("name", [PolicyName.MUSTER, PolicyName.FGD, PolicyName.BESTFIT])
def test_fresh_view_over_random_clusters_decides_like_one_pool(name: PolicyName) -> None:
    alone, _ = fates(None, name)
    shared, federated = fates(FleetShape(5, Split.RANDOM), name)
    assert shared == alone
    assert federated is not None
    assert federated.refused_count == 0


def test_fresh_view_over_clusters_of_one_model_decides_like_one_pool() -> None:
    """Scores compare nodes of all clusters, and clusters are filled side by side: only ties could differ."""
    alone, _ = fates(None)
    shared, _ = fates(FleetShape(5, Split.MODEL))
    assert [one.spot is None for one in shared] == [one.spot is None for one in alone]


def test_old_view_makes_clusters_refuse_and_nobody_is_lost_by_it() -> None:
    exam = Exam(nodes(30), pods(200), fleet=FleetShape(5, Split.RANDOM, view_age=50))
    pool, policy = exam.start(PolicyName.MUSTER, 42)
    assert isinstance(policy, Federated)
    for arrival in play(exam, pool, policy, 42):
        if arrival.spot is None:
            assert not pool.fits(arrival.pod.shape).any()
    assert policy.refused_count > 0


def test_view_is_exactly_as_old_as_asked_for() -> None:
    exam = Exam(nodes(30), pods(100), fleet=FleetShape(3, Split.MODEL, view_age=7))
    pool, policy = exam.start(PolicyName.BESTFIT, 42)
    assert isinstance(policy, Federated)
    taken: list[int] = []
    for arrival in play(exam, pool, policy, 42):
        # When this pod was placed, the view held all but the last seven arrivals before it.
        assert int(policy._view.cpu.sum()) == sum(node.cpu_milli for node in pool.nodes) - sum(taken[:-7])
        taken.append(arrival.pod.shape.cpu_milli if arrival.spot is not None else 0)
