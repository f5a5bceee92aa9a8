"""The FGD exam at toy size: who arrives, where the rules put them, and that the figures can be recomputed by others."""

from __future__ import annotations

import gzip
import math
import random
from collections import Counter
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

from federation.simulate.openb import LOADS, Arrival, Curve, Exam, PolicyName, play, run_openb
from federation.simulate.openb_arrivals import arrivals, arrivals_expected, capacity_milli, node_order
from federation.simulate.openb_lists import (
    AMOUNT_MAX,
    ListError,
    NodeSpec,
    PodShape,
    PodSpec,
    read_nodes,
    read_pods,
    refuse_nameless_models,
)
from federation.simulate.openb_pool import Pool, Spot
from federation.simulate.policies import NO_ROOM, BestFit, ByScore, ScoreRows
from federation.simulate.policies_fgd import Fgd
from tests.unit.simulate.openb_lists import node_csv, nodes, pod_csv, pods, recomputed

# --- lists ---


def test_lists_are_read_by_column_name_gzipped_or_not(tmp_path: Path) -> None:
    plain, packed = tmp_path / "n.csv", tmp_path / "p.csv.gz"
    plain.write_text("model,gpu,memory_mib,cpu_milli,sn,rack\nT4,2,4096,8000,b,r1\n,0,4096,8000,a,r1\n")
    with gzip.open(packed, "wt") as file:
        file.write("name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,creation_time,deletion_time\n")
        file.write("p1,500,64,1,460,V100M32|T4,5,9\np0,500,64,0,0,,,\n")
    assert read_nodes(plain) == (NodeSpec("b", 8000, 4096, 2, "T4"),)
    assert read_pods(packed) == (
        PodSpec("p0", PodShape(500, 64, 0, 0, ()), -1, -1),
        PodSpec("p1", PodShape(500, 64, 1, 460, ("T4", "V100M32")), 5, 9),
    )


@pytest.mark.parametrize(
    ("text", "what"),
    [
        pytest.param("name,cpu_milli\n", "line 1: column memory_mib is missing", id="column missing"),
        pytest.param(pod_csv(()) + "a,x,1,1,1000,\n", "line 2: cpu_milli 'x' is not a whole number", id="no number"),
        pytest.param(pod_csv(()) + "a,-1,1,1,1000,\n", "line 2: cpu_milli '-1' is not a whole number", id="negative"),
        pytest.param(
            pod_csv(()) + "a,1,1,1,1001,\n", "gpu_milli '1001' is not a whole number from 0 to 1000", id="milli"
        ),
        pytest.param(pod_csv(()) + "a,1,1,65,1000,\n", "num_gpu '65' is not a whole number from 0 to 64", id="gpus"),
        pytest.param(pod_csv(()) + "a,1,1,1,0,\n", "both or neither must be 0", id="GPU of nothing"),
        pytest.param(pod_csv(()) + ",1,1,1,1000,\n", "line 2: name is empty", id="no name"),
        pytest.param(pod_csv(()) + "a,1,1,0,0,\n", "no pod asks for a GPU", id="no GPUs"),
        pytest.param(
            pod_csv(()) + "b,1,1,1,1000,\na,1,1,1,1000,\nb,1,1,1,1000,\n",
            "line 4: b is listed twice, first in line 2",
            id="twice",
        ),
        pytest.param(pod_csv(()) + f"a,{'9' * 5_000},1,1,1000,\n", f"from 0 to {AMOUNT_MAX}", id="thousands of digits"),
        pytest.param(pod_csv(()) + "a,1,000,1,1,1000,\n", "line 2: there are more fields than the 6", id="more fields"),
        pytest.param("cpu_milli," + pod_csv(()), "line 1: column cpu_milli is there twice", id="column twice"),
        pytest.param(pod_csv(()) + f"a,{AMOUNT_MAX + 1},1,1,1000,\n", f"from 0 to {AMOUNT_MAX}", id="too much CPU"),
    ],
)
def test_list_that_cannot_be_used_says_where_and_why(text: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "pods.csv"
    path.write_text(text)
    with pytest.raises(ListError) as caught:
        read_pods(path)
    assert what in str(caught.value)


def test_largest_amount_is_still_read(tmp_path: Path) -> None:
    path = tmp_path / "pods.csv"
    path.write_text(pod_csv(()) + f"a,{AMOUNT_MAX},1,64,1000,\n")
    assert read_pods(path)[0].shape.cpu_milli == AMOUNT_MAX


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(pod_csv(pods(9)).encode("utf-8-sig"), id="byte order mark"),
        pytest.param(gzip.compress(pod_csv(pods(9)).encode()), id="gzip by another name"),
        pytest.param(pod_csv(pods(9)).replace("\n", "\r\n").encode(), id="lines of DOS"),
        pytest.param(pod_csv(pods(9)).replace("name,cpu_milli", " name, cpu_milli ", 1).encode(), id="spaces"),
        pytest.param(pod_csv(pods(9)).replace("\n", ",,\n").encode(), id="columns without a name"),
    ],
)
def test_list_may_be_written_as_other_programs_write_them(written: bytes, tmp_path: Path) -> None:
    path = tmp_path / "pods.csv"
    path.write_bytes(written)
    assert read_pods(path) == pods(9)


def test_pods_that_ask_for_models_need_nodes_that_have_some(tmp_path: Path) -> None:
    nameless, asking = NodeSpec("a", 1, 1, 1, ""), PodSpec("p", PodShape(1, 1, 1, 1000, ("T4",)))
    with pytest.raises(ListError, match="no node has a model, and p asks for one"):
        refuse_nameless_models(tmp_path, [nameless], [asking])
    refuse_nameless_models(tmp_path, [nameless, nameless._replace(model="G2")], [asking])
    refuse_nameless_models(tmp_path, [nameless], [PodSpec("q", asking.shape._replace(models=()))])


def test_file_that_only_pretends_to_be_gzip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pods.csv.gz"
    path.write_text(pod_csv(pods(3)))
    with pytest.raises(ListError, match="not a CSV file"):
        read_pods(path)


# --- arrivals ---


def test_all_pods_arrive_first_then_copies_until_the_next_would_pass_130_percent() -> None:
    listed = pods(40)
    capacity = 4 * sum(pod.shape.demand_milli for pod in listed)
    arrived = arrivals(listed, capacity, seed=42)
    assert sorted(arrived[:40]) == sorted(listed)
    demand = sum(pod.shape.demand_milli for pod in arrived)
    assert demand <= capacity * 1.3
    assert demand > capacity * 1.3 - 8_000


def test_expected_arrivals_are_those_that_come() -> None:
    few, many = pods(40), pods(200)
    capacity = sum(pod.shape.demand_milli for pod in many) // 2
    assert arrivals_expected(few, 40 * capacity) == pytest.approx(len(arrivals(few, 40 * capacity, 1)), rel=0.05)
    assert arrivals_expected(many, capacity) == 200  # those that are taken out again are counted


def test_pods_that_ask_for_more_than_130_percent_are_thinned_and_none_comes_twice() -> None:
    listed = pods(200)
    capacity = sum(pod.shape.demand_milli for pod in listed) // 2
    arrived = arrivals(listed, capacity, seed=42)
    assert capacity * 1.3 - 8_000 < sum(pod.shape.demand_milli for pod in arrived) <= capacity * 1.3
    assert max(Counter(pod.name for pod in arrived).values()) == 1


def test_seed_decides_the_order_of_pods_and_nodes_whatever_order_the_lists_have() -> None:
    listed, capacity = pods(40), 100_000
    assert arrivals(listed, capacity, 1) == arrivals(listed[::-1], capacity, 1)
    assert arrivals(listed, capacity, 1) != arrivals(listed, capacity, 2)
    assert node_order(nodes(), 1) == node_order(nodes()[::-1], 1)
    assert node_order(nodes(), 1) != node_order(nodes(), 2)


# --- pool ---


def test_pod_needs_cpu_memory_model_and_as_many_devices_with_room() -> None:
    pool = Pool([NodeSpec("a", 8_000, 100, 2, "T4"), NodeSpec("b", 8_000, 100, 1, "G2")])
    pool.take(Spot(0, (1,)), PodShape(0, 0, 1, 600, ()))
    assert pool.fits(PodShape(8_000, 100, 1, 1000, ())).tolist() == [True, True]
    assert pool.fits(PodShape(8_001, 100, 0, 0, ())).tolist() == [False, False]
    assert pool.fits(PodShape(8_000, 101, 0, 0, ())).tolist() == [False, False]
    assert pool.fits(PodShape(1, 1, 2, 1000, ())).tolist() == [False, False]
    assert pool.fits(PodShape(1, 1, 2, 400, ())).tolist() == [True, False]
    assert pool.fits(PodShape(1, 1, 0, 0, ("G2", "X"))).tolist() == [False, True]


def test_share_takes_the_device_it_leaves_the_least_on_and_whole_gpus_the_lowest_free_ones() -> None:
    pool = Pool([NodeSpec("a", 8_000, 100, 4, "T4")])
    pool.take(Spot(0, (2,)), PodShape(0, 0, 1, 300, ()))
    assert pool.tightest(0, PodShape(0, 0, 1, 700, ())) == (2,)
    assert pool.tightest(0, PodShape(0, 0, 1, 800, ())) == (0,)
    assert pool.tightest(0, PodShape(0, 0, 3, 1000, ())) == (0, 1, 3)
    assert pool.tightest(0, PodShape(0, 0, 0, 0, ())) == ()


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(PodShape(9_000, 0, 0, 0, ()), id="CPU"),
        pytest.param(PodShape(0, 101, 0, 0, ()), id="memory"),
        pytest.param(PodShape(0, 0, 1, 701, ()), id="device"),
        pytest.param(PodShape(0, 0, 1, 100, ("G2",)), id="model"),
    ],
)
def test_pool_never_gives_what_it_does_not_have(shape: PodShape) -> None:
    pool = Pool([NodeSpec("a", 8_000, 100, 1, "T4")])
    pool.take(Spot(0, (0,)), PodShape(0, 0, 1, 300, ()))
    with pytest.raises(AssertionError):
        pool.take(Spot(0, (0,) * shape.gpus), shape)
    assert (pool.cpu.tolist(), pool.memory.tolist(), pool.free.tolist()) == ([8_000], [100], [[700]])


def test_pool_takes_back_what_it_gave_and_no_more() -> None:
    pool = Pool([NodeSpec("a", 8_000, 100, 2, "T4")])
    shape, spot = PodShape(3_000, 10, 2, 1000, ()), Spot(0, (0, 1))
    pool.take(spot, shape)
    pool.give(spot, shape)
    assert (pool.cpu.tolist(), pool.memory.tolist(), pool.free.tolist()) == ([8_000], [100], [[1000], [1000]])
    with pytest.raises(AssertionError):
        pool.give(spot, shape)


# --- rules ---


def filled(seed: int, count: int = 40) -> Pool:
    """A pool in which pods stand wherever chance put them."""
    pool, dice = Pool(nodes()), random.Random(seed)
    for pod in pods(count, seed):
        found = np.flatnonzero(pool.fits(pod.shape)).tolist()
        if found:
            node = dice.choice(found)
            pool.take(Spot(node, pool.tightest(node, pod.shape)), pod.shape)
    return pool


def fragments_plainly(pool: Pool, listed: tuple[PodSpec, ...], node: int, cpu: int, free: list[int]) -> float:
    """F(node) as the paper's simulator defines it, one class after the other."""
    counts = Counter((p.shape.cpu_milli, p.shape.gpu_milli, p.shape.gpus, p.shape.models) for p in listed)
    kept, covered = {}, 0
    for key, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if covered >= 0.95 * len(listed):
            break
        kept[key] = count
        covered += count
    lost = 0.0
    for (asked_cpu, milli, gpus, models), count in kept.items():
        enough = [one for one in free if gpus and one >= milli]
        runs = gpus > 0 and len(enough) >= gpus and cpu >= asked_cpu
        runs = runs and (not models or pool.nodes[node].model in models)
        lost += count / covered * (sum(free) - sum(enough) if runs else sum(free))
    return lost


def fgd_plainly(pool: Pool, listed: tuple[PodSpec, ...], shape: PodShape) -> tuple[int, tuple[int, ...]] | None:
    best: tuple[int, int, tuple[int, ...]] | None = None
    for node in range(len(pool)):
        if not pool.fits(shape)[node]:
            continue
        free = [milli for milli in pool.free[:, node].tolist() if milli >= 0]
        cpu = int(pool.cpu[node])
        shared = shape.gpus == 1 and shape.gpu_milli < 1000
        suited = [at for at, milli in enumerate(free) if milli >= shape.gpu_milli]
        for devices in [(at,) for at in suited] if shared else [pool.tightest(node, shape)]:
            after = [milli - shape.gpu_milli * (at in devices) for at, milli in enumerate(free)]
            gained = fragments_plainly(pool, listed, node, cpu, free)
            gained -= fragments_plainly(pool, listed, node, cpu - shape.cpu_milli, after)
            score = int(100 / (1 + math.exp(-gained / 1000)) + 1e-9)
            if best is None or score > best[0]:
                best = score, node, devices
    return None if best is None else best[1:]


@pytest.mark.parametrize("seed", range(6))
def test_fgd_chooses_what_the_published_formula_chooses(seed: int) -> None:
    pool, listed = filled(seed), pods(120, seed)
    rule = ByScore(Fgd(pool, listed))
    for shape in sorted({pod.shape for pod in pods(60, seed + 100)}):
        spot = rule.choose(shape)
        assert (None if spot is None else (spot.node, spot.devices)) == fgd_plainly(pool, listed, shape)


def test_best_fit_takes_the_node_that_is_left_with_the_least() -> None:
    listed = [
        NodeSpec("a", 96_000, 1000, 8, "G2"),
        NodeSpec("b", 64_000, 1000, 2, "T4"),
        NodeSpec("c", 64_000, 1000, 2, "T4"),
    ]
    pool = Pool(listed)
    assert ByScore(BestFit(pool)).choose(PodShape(8_000, 10, 1, 1000, ())) == Spot(1, (0,))
    pool.take(Spot(2, (1,)), PodShape(8_000, 10, 1, 500, ()))
    assert ByScore(BestFit(pool)).choose(PodShape(8_000, 10, 1, 400, ())) == Spot(2, (1,))


def test_best_fit_tells_nodes_apart_that_are_larger_than_its_scales() -> None:
    pool = Pool([NodeSpec("a", 900_000, 1000, 16, "G2"), NodeSpec("b", 700_000, 1000, 16, "G2")])
    assert ByScore(BestFit(pool)).choose(PodShape(1, 1, 1, 1000, ())) == Spot(1, (0,))


@pytest.mark.parametrize("name", list(PolicyName))
def test_rule_refuses_only_what_fits_nowhere(name: PolicyName) -> None:
    exam = Exam(nodes(), pods())
    pool, policy = exam.start(name, 42)
    refused = 0
    for arrival in play(exam, pool, policy, 42):
        if arrival.spot is None:
            refused += 1
            assert not pool.fits(arrival.pod.shape).any()
    assert refused


def test_remembered_scores_are_those_worked_out_anew() -> None:
    pool, listed = filled(3), pods(120, 3)
    rule = Fgd(pool, listed)
    kept = ScoreRows(pool, rule._score)
    for pod in pods(80, 11):
        assert kept.row(pod.shape).tolist() == rule._score(pod.shape, np.arange(len(pool))).tolist()
        spot = ByScore(rule).choose(pod.shape)
        if spot is not None:
            pool.take(spot, pod.shape)


def test_no_room_is_less_than_any_score() -> None:
    pool = Pool([NodeSpec("a", 10**9, 10**9, 8, "G2")])  # far beyond the constants of best-fit
    assert ByScore(BestFit(pool)).choose(PodShape(1, 1, 1, 1000, ())) == Spot(0, (0,))
    assert NO_ROOM < 0


# --- figures ---


def arrival(order: int, milli: int, *, placed: bool) -> Arrival:
    return Arrival(order, PodSpec(f"p{order}", PodShape(0, 0, 1, milli, ())), Spot(0, (0,)) if placed else None)


def test_curve_averages_over_the_arrivals_of_one_rounded_percent() -> None:
    curve = Curve(capacity=100_000)
    for order, (milli, placed) in enumerate([(994, True), (6, True), (1, True), (499, False), (500, True)]):
        curve.add(arrival(order, milli, placed=placed))
    assert curve.unallocated_pct(1) == pytest.approx(100 - (0.994 + 1.0 + 1.001) / 3)
    assert curve.unallocated_pct(2) == pytest.approx(100 - (1.001 + 1.501) / 2)  # 1.5 is rounded up
    assert curve.unallocated_pct(95) == curve.unallocated_pct(2)  # nothing fell on it: as after the last before


@pytest.mark.parametrize("name", list(PolicyName))
def test_figures_can_be_recomputed_from_the_assignments_alone(name: PolicyName) -> None:
    file = StringIO()
    report = run_openb(Exam(nodes(), pods()), name, [42, 43], assignments=file)
    found = recomputed(file.getvalue(), nodes(), pods(), LOADS)
    for run in report.runs:
        assert {load: round(pct, 4) for load, pct in found[run.seed].items()} == {
            int(load): pct for load, pct in run.unallocated_pct.items()
        }
    assert report.mean["100"] == pytest.approx(sum(run.unallocated_pct["100"] for run in report.runs) / 2, abs=1e-4)


def test_names_that_hold_a_comma_or_a_quote_come_back_from_the_assignments() -> None:
    listed_nodes = [NodeSpec('rack 1, "a"', 8_000, 100, 1, "T4")]
    listed_pods = [PodSpec("p,0", PodShape(1, 1, 1, 500, ()))]
    file = StringIO()
    run_openb(Exam(listed_nodes, listed_pods), PolicyName.BESTFIT, [1], assignments=file)
    assert recomputed(file.getvalue(), listed_nodes, listed_pods, (100,)) == {1: {100: 0.0}}


def test_checker_of_assignments_sees_an_overfull_device() -> None:
    one, pod = NodeSpec("a", 8_000, 100, 1, "T4"), PodSpec("p", PodShape(1, 1, 1, 600, ()))
    rows = "seed,order,pod,node,gpus,gpu_milli\n1,0,p,a,0,600\n1,1,p,a,0,600\n"
    with pytest.raises(AssertionError):
        recomputed(rows, [one], [pod], LOADS)


def test_capacity_is_all_gpus() -> None:
    assert capacity_milli(nodes(3)) == 14_000


def test_lists_of_the_tests_read_back(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text(node_csv(nodes()))
    (tmp_path / "p.csv").write_text(pod_csv(pods()))
    assert read_nodes(tmp_path / "n.csv") == nodes()
    assert read_pods(tmp_path / "p.csv") == pods()
