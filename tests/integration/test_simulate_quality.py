"""Two of the public openb lists, two seeds each: the exam gives what was published, and our own rule does better."""

from __future__ import annotations

from io import StringIO
from statistics import fmean

import pytest

from federation.simulate.openb import LOADS, Exam, FleetShape, PolicyName, run_openb
from federation.simulate.openb_clusters import Split
from federation.simulate.openb_lists import read_nodes, read_pods
from tests.documents import ROOT
from tests.unit.simulate.openb_lists import recomputed

LISTS = ROOT / "examples" / "openb"
NODES = read_nodes(LISTS / "openb_node_list_gpu_node.csv.gz")
SEEDS = [42, 43]

# Weng et al., USENIX ATC 2023: means over ten seeds, unallocated GPU % at 100 % load.
PUBLISHED = {
    "default": {PolicyName.FGD: 4.77, PolicyName.BESTFIT: 7.14, PolicyName.RANDOM: 13.70},
    "multigpu20": {PolicyName.FGD: 4.47, PolicyName.BESTFIT: 6.27, PolicyName.RANDOM: 13.08},
}
TWO_SEEDS_OFF_MAX = {PolicyName.FGD: 0.4, PolicyName.BESTFIT: 0.6, PolicyName.RANDOM: 1.0}  # by their spread
OURS_MAX = {"default": 4.0, "multigpu20": 3.7}  # ten seeds give 3.77 and 3.32


def exam_of(name: str, fleet: FleetShape | None = None) -> Exam:
    return Exam(NODES, read_pods(LISTS / f"openb_pod_list_{name}.csv.gz"), fleet=fleet)


@pytest.mark.parametrize("rule", [PolicyName.FGD, PolicyName.BESTFIT, PolicyName.RANDOM])
@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_rules_give_the_published_figures(name: str, rule: PolicyName) -> None:
    mean = run_openb(exam_of(name), rule, SEEDS).mean["100"]
    assert mean == pytest.approx(PUBLISHED[name][rule], abs=TWO_SEEDS_OFF_MAX[rule])


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_our_rule_leaves_less_unallocated_than_any_published_one(name: str) -> None:
    file, exam = StringIO(), exam_of(name)
    report = run_openb(exam, PolicyName.MUSTER, SEEDS, assignments=file)
    found = recomputed(file.getvalue(), exam.nodes, exam.pods, LOADS)
    assert fmean(found[seed][100] for seed in SEEDS) == pytest.approx(report.mean["100"], abs=1e-4)
    assert report.mean["100"] <= OURS_MAX[name]
    assert report.mean["100"] <= PUBLISHED[name][PolicyName.FGD] - 0.2


def test_single_model_clusters_cost_nothing_while_the_view_is_fresh() -> None:
    report = run_openb(exam_of("default", FleetShape(16, Split.MODEL)), PolicyName.MUSTER, [42])
    assert report.mean["100"] <= 4.1
