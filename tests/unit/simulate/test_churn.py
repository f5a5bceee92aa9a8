"""Pods that leave again: who comes when, that all they held comes back, and what counts as refused."""

from __future__ import annotations

import pytest

from federation.simulate.churn import TURNOVERS, Stay, play_stays, recorded, run_churn, stationary
from federation.simulate.openb import Exam, PolicyName
from federation.simulate.openb_arrivals import capacity_milli
from federation.simulate.openb_lists import NodeSpec, PodShape, PodSpec
from tests.unit.simulate.openb_lists import nodes, pods

WHOLE = PodShape(1_000, 10, 1, 1000, ())
HALF = PodShape(1_000, 10, 1, 500, ())


def exam_of(*listed: PodSpec) -> Exam:
    return Exam([NodeSpec("a", 8_000, 100, 2, "T4")], listed or [PodSpec("p", WHOLE)])


def test_stays_are_those_of_the_list_in_order_of_time() -> None:
    listed = [
        PodSpec("late", WHOLE, 50, 60),
        PodSpec("early", HALF, 0, 70),
        PodSpec("never left", HALF, 5, -1),
        PodSpec("left before it came", HALF, 9, 9),
    ]
    assert recorded(listed) == [Stay(0, 70, HALF, counted=True), Stay(50, 60, WHOLE, counted=True)]


def test_refused_share_is_of_gpu_time() -> None:
    stays = [
        Stay(0, 10, WHOLE, counted=True),
        Stay(1, 5, WHOLE, counted=True),
        Stay(2, 8, HALF, counted=True),  # both GPUs are held: refused
        Stay(5, 9, WHOLE, counted=True),  # who leaves at that moment has left
    ]
    found = play_stays(exam_of(), PolicyName.BESTFIT, stays, 42)
    assert (found.asked, found.refused) == (10_000 + 4_000 + 3_000 + 4_000, 3_000)
    assert (found.pods, found.refused_pods) == (4, 1)


def test_what_is_not_counted_still_takes_room() -> None:
    stays = [Stay(0, 10, PodShape(1, 1, 2, 1000, ()), counted=False), Stay(1, 3, WHOLE, counted=True)]
    found = play_stays(exam_of(), PolicyName.BESTFIT, stays, 42)
    assert (found.asked, found.refused, found.pods) == (2_000, 2_000, 1)


def test_stationary_stays_ask_for_the_load_and_begin_in_balance() -> None:
    listed = pods(200)
    capacity = capacity_milli(nodes(300))
    stays = stationary(listed, capacity, 0.9, 42)
    first = [stay for stay in stays if stay.from_s == 0]
    assert sum(stay.shape.demand_milli for stay in first) == pytest.approx(0.9 * capacity, rel=0.1)
    counted = [stay for stay in stays if stay.counted]
    assert all(TURNOVERS / 2 <= stay.from_s < TURNOVERS for stay in counted)
    work = sum(stay.shape.demand_milli * (stay.until_s - stay.from_s) for stay in counted)
    assert work == pytest.approx(0.9 * capacity * TURNOVERS / 2, rel=0.15)


@pytest.mark.parametrize("name", list(PolicyName))
def test_pool_is_empty_when_all_have_left(name: PolicyName) -> None:
    """`Pool.give` checks that nothing comes back twice; here, that nothing is kept."""
    exam = Exam(nodes(12), pods(80))
    stays = [
        *stationary(exam.pods, exam.capacity, 0.95, 7),
        Stay(10**9, 10**9 + 1, PodShape(1, 1, 0, 0, ()), counted=False),
    ]
    pools = []
    begin = exam.start

    class Watched(Exam):
        def start(self, name: PolicyName, seed: int):  # type: ignore[no-untyped-def]
            pools.append(begin(name, seed))
            return pools[-1]

    play_stays(Watched(exam.nodes, exam.pods), name, stays, 42)
    pool = pools[0][0]
    assert int(pool.cpu.sum()) == sum(node.cpu_milli for node in exam.nodes) - 1
    assert int(pool.free[pool.free >= 0].sum()) == exam.capacity


def test_report_has_the_recorded_stays_first_and_a_row_per_load() -> None:
    timed = tuple(pod._replace(created_s=at, deleted_s=at + 40) for at, pod in enumerate(pods(80)))
    report = run_churn(Exam(nodes(12), timed), PolicyName.BESTFIT, [42, 43], loads=(40, 300))
    assert [row.load for row in report.loads] == ["recorded", "40", "300"]
    assert all(len(row.runs) == 2 for row in report.loads)
    assert report.loads[2].refused_pct > report.loads[1].refused_pct
    assert [row.load for row in run_churn(Exam(nodes(3), pods(9)), PolicyName.BESTFIT, [1], loads=(90,)).loads] == [
        "90"
    ]
