"""The demo's checks fire on what they are for, name promise, group and moment, and are quiet otherwise."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from federation.cli.demo.checks import (
    Broken,
    Promise,
    Returned,
    all_or_nothing,
    check_all,
    no_orphans,
    no_overcommit,
    nothing_lost,
    one_home,
)
from federation.cli.demo.evidence import BrokenLogError, PodAct, Run, RunLine, read_run_log, runs_of
from federation.cli.demo.workload import Job
from tests.unit.demo.logs import acknowledged, act, evidence, job, ran

JOBS: Mapping[str, Job] = {"g": job()}
UNDO_S = 12.0
READ_BACK = {"g": "Succeeded"}


def said(broken: list[Broken]) -> list[str]:
    return [one.what for one in broken]


# --- one home --------------------------------------------------------------------------------------------------------


def test_a_container_that_runs_on_when_its_group_starts_elsewhere_breaks_s1() -> None:
    found = one_home([ran("a-old", 0, 12.5), ran("a-new", 10, 20, cluster="us", token="l.11")], JOBS)
    assert found == [
        Broken(Promise.ONE_HOME, "g", "train", "a-old still ran in eu when a-new started in us, and for 2.5 s more", 10)
    ]


def test_a_container_that_never_ended_breaks_s1_once_its_group_starts_elsewhere() -> None:
    found = one_home([ran("a-old", 0, None), ran("a-new", 10, 20, cluster="us", token="l.11")], JOBS)
    assert said(found) == ["a-old still ran in eu when a-new started in us, and never ended"]


@pytest.mark.parametrize(
    "second",
    [
        ran("a", 10, 20, cluster="us"),
        ran("b", 5, 9),
        ran("a", 5, 9, cluster="us", group="other"),
    ],
    ids=["it starts as the old one ends", "same cluster", "another group"],
)
def test_one_home_is_kept(second: Run) -> None:
    assert one_home([ran("a", 0, 10), second], JOBS) == []


# --- no over-commitment ----------------------------------------------------------------------------------------------


def test_a_gpu_held_by_two_containers_at_once_breaks_s4() -> None:
    found = no_overcommit(evidence([ran("a", 0, 10, gpus=(0, 1)), ran("b", 9, 20, gpus=(1,))]), JOBS)
    assert said(found) == ["GPU 1 of n-1 was given to b while a still held it"]


def test_a_gpu_held_through_a_shorter_hold_still_counts() -> None:
    runs = [ran("a", 0, 30, gpus=(0,)), ran("b", 5, 6, gpus=(0,)), ran("c", 10, 20, gpus=(0,))]
    assert len(no_overcommit(evidence(runs), JOBS)) == 2


def test_a_gpu_may_be_held_again_as_soon_as_it_is_free() -> None:
    assert no_overcommit(evidence([ran("a", 0, 10, gpus=(0,)), ran("b", 10, 20, gpus=(0,))]), JOBS) == []


def test_bindings_beyond_what_a_node_has_break_s4_even_if_nothing_ran() -> None:
    found = no_overcommit(evidence(acts=[act("bound", 1, 0), act("bound", 2, 1)]), JOBS)
    assert said(found) == ["binding train-1-9-abc promised 16 GPUs of n-1, which has 8"]


@pytest.mark.parametrize("end", ["removed", "marked"])
def test_a_node_may_be_promised_again_once_its_pod_is_gone_or_can_start_no_more(end: str) -> None:
    acts = [act("bound", 1, 0), act(end, 2, 0), act("bound", 3, 1)]
    assert no_overcommit(evidence(acts=acts), JOBS) == []


def test_a_marked_pod_whose_container_still_runs_keeps_its_gpus() -> None:
    acts = [act("bound", 1, 0, uid="eu/a/l.9"), act("marked", 2, 0, uid="eu/a/l.9"), act("bound", 3, 1)]
    assert len(no_overcommit(evidence([ran("a", 1.5, 4)], acts), JOBS)) == 1


def test_a_product_the_group_does_not_accept_breaks_s4() -> None:
    found = no_overcommit(evidence([ran("a", 0, 10, gpus=(0,))]), {"g": job(products=("A100-80", "L4-24"))})
    assert said(found) == ["a ran on H100-80, accepted are A100-80, L4-24"]


# --- all or nothing --------------------------------------------------------------------------------------------------


def test_half_a_gang_bound_for_longer_than_t_undo_breaks_s6() -> None:
    found = all_or_nothing(evidence(acts=[act("bound", 1, 0), act("removed", 13.1, 0)]), JOBS, UNDO_S)
    assert said(found) == ["1 of 2 pods were bound in eu for 12.1 s, allowed are 12 s"]
    assert found[0].at_s == 1


def test_half_a_gang_bound_for_ever_breaks_s6() -> None:
    assert len(all_or_nothing(evidence(acts=[act("bound", 1, 0)]), JOBS, UNDO_S)) == 1


@pytest.mark.parametrize(
    "acts",
    [
        [act("bound", 1, 0), act("bound", 13, 1, node="n-2"), act("removed", 50, 0), act("removed", 62, 1)],
        [act("bound", 1, 0), act("removed", 13, 0)],
        [act("bound", 1, 0), act("marked", 5, 0), act("removed", 60, 0)],
        [
            act("bound", 1, 0),
            act("bound", 2, 0, uid="eu/x", token="l.10"),
            act("marked", 3, 0, uid="eu/x"),
            act("bound", 4, 1),
        ],
    ],
    ids=["whole within it", "undone within it", "undone, its object kept until somebody hears of it", "two placements"],
)
def test_all_or_nothing_is_kept(acts: list[PodAct]) -> None:
    assert all_or_nothing(evidence(acts=acts), JOBS, UNDO_S) == []


# --- nothing lost ----------------------------------------------------------------------------------------------------


def test_a_gang_that_ran_whole_to_its_end_is_not_lost() -> None:
    assert nothing_lost(acknowledged(), [ran("a", 1, 11), ran("b", 2, 12)], READ_BACK) == []


def test_only_the_last_placement_has_to_reach_the_end() -> None:
    first = [ran("a", 1, 5, why="GuardFenced"), ran("b", 1, 5, why="GuardFenced")]
    second = [ran("a2", 9, 19, cluster="us", token="l.11"), ran("b2", 9, 19, cluster="us", token="l.11")]
    assert nothing_lost(acknowledged(), first + second, READ_BACK) == []


@pytest.mark.parametrize(
    ("runs", "phases", "what"),
    [
        ([], READ_BACK, "it never ran"),
        ([ran("a", 1, 11)], READ_BACK, "of 2 pods 1 ran under its last token, 1 to their end"),
        (
            [ran("a", 1, 11), ran("b", 1, 5, why="Deleted")],
            READ_BACK,
            "of 2 pods 2 ran under its last token, 1 to their end",
        ),
        ([ran("a", 1, 11), ran("b", 11, 21)], READ_BACK, "its pods did not run together"),
        ([ran("a", 1, 11), ran("b", 1, None)], READ_BACK, "b still runs in eu"),
        ([ran("a", 1, 11), ran("b", 1, 11)], {}, "the server does not know it any more"),
        ([ran("a", 1, 11), ran("b", 1, 11)], {"g": "Failed"}, "it ran to its end, and the server says Failed"),
    ],
    ids=["never ran", "in part", "stopped", "one after the other", "still runs", "forgotten", "said otherwise"],
)
def test_what_breaks_s7(runs: list[Run], phases: dict[str, str], what: str) -> None:
    assert said(nothing_lost(acknowledged(), runs, phases)) == [what]


def test_containers_of_a_group_nobody_was_answered_for_break_s7() -> None:
    runs = [ran("a", 1, 11), ran("b", 1, 11), ran("x", 1, 2, group="h")]
    assert said(nothing_lost(acknowledged(), runs, READ_BACK)) == ["1 containers ran that nobody was answered for"]


# --- the return ------------------------------------------------------------------------------------------------------

RETURNED = Returned("eu", cut_s=5, admitted_s=30)


def test_a_container_from_before_the_cut_that_runs_on_after_the_return_is_an_orphan() -> None:
    assert said(no_orphans([ran("a", 1, 31)], JOBS, RETURNED)) == ["a still ran in eu"]


@pytest.mark.parametrize(
    "run", [ran("a", 1, 30), ran("a", 31, 40), ran("a", 1, 40, cluster="us")], ids=["ended", "new", "elsewhere"]
)
def test_no_orphans(run: Run) -> None:
    assert no_orphans([run], JOBS, RETURNED) == []


def test_a_cluster_that_never_came_back_is_told() -> None:
    assert said(no_orphans([], JOBS, None)) == ["the cut cluster was never in use again"]


# --- all of it -------------------------------------------------------------------------------------------------------


def test_every_promise_has_a_verdict() -> None:
    runs = [ran("a", 1, 11, gpus=(0,)), ran("b", 1, 11, gpus=(1,))]
    found = check_all(acknowledged(), evidence(runs), undo_s=UNDO_S, phases=READ_BACK, returned=RETURNED)
    assert {promise.code: broken for promise, broken in found.items()} == {
        "S1": [],
        "S4": [],
        "S6": [],
        "S7": [],
        "L4": [],
    }


def test_where_the_demo_ran_out_of_time_only_groups_that_ended_are_judged() -> None:
    promised = [*acknowledged("g"), *acknowledged("h"), *acknowledged("forgotten")]
    found = check_all(
        promised,
        evidence([ran("a", 1, None, group="g"), ran("b", 1, 2, group="h")]),
        undo_s=UNDO_S,
        phases={"g": "Running", "h": "Succeeded"},
        returned=RETURNED,
        finished=False,
    )
    assert [(one.uid, one.what) for one in found[Promise.NOTHING_LOST]] == [
        ("h", "of 2 pods 1 ran under its last token, 1 to their end"),
        ("forgotten", "it never ran"),
    ]


# --- the logs --------------------------------------------------------------------------------------------------------


def line(event: str, at_s: float) -> RunLine:
    return RunLine(cluster="eu", node="n", pod="a", uid="u", group="g", token="l.9", event=event, at_s=at_s)


def test_starts_and_ends_are_paired_and_an_open_run_has_no_end() -> None:
    found = runs_of([line("started", 1), line("ended", 2), line("started", 3)])
    assert [(run.started_s, run.ended_s) for run in found] == [(1, 2), (3, None)]


@pytest.mark.parametrize("lines", [[line("ended", 1)], [line("started", 1), line("started", 2)]])
def test_a_log_that_no_kubelet_writes_is_an_error(lines: list[RunLine]) -> None:
    with pytest.raises(BrokenLogError):
        runs_of(lines)


def test_a_line_that_is_being_written_is_left_out() -> None:
    whole = b'{"cluster":"eu","node":"n","pod":"a","uid":"u","group":"g","token":"l.9","event":"started","at_s":1}'
    assert len(read_run_log(whole + b"\n" + whole[:20])) == 1
