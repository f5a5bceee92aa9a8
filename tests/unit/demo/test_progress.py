"""What the demo shows, folded from the decision log."""

from __future__ import annotations

from typing import Any

import pytest

from federation.cli.demo.progress import Counts, Latency, Progress, percentile
from muster.results import Decision


def decision(position: int, kind: str, uid: str = "", *, at_ms: int = 0, cluster: str = "", **detail: Any) -> Decision:
    return Decision(position=position, kind=kind, uid=uid, at_ms=at_ms, cluster=cluster, detail=detail)


def after(*decisions: Decision) -> Progress:
    progress = Progress()
    progress.take(decisions)
    return progress


SUBMITTED = decision(1, "Submitted", "l.1", at_ms=1_000)
PLACED = decision(2, "Placed", "l.1", at_ms=1_100, cluster="eu")
BOUND = decision(3, "Bound", "l.1", at_ms=1_400, cluster="eu")
RUNNING = decision(4, "Running", "l.1", cluster="eu")


def test_a_group_is_counted_by_what_it_does() -> None:
    assert after(SUBMITTED).counts() == Counts(pending=1)
    assert after(SUBMITTED, PLACED).counts() == Counts(placed=1)
    assert after(SUBMITTED, PLACED, BOUND).counts() == Counts(bound=1)
    assert after(SUBMITTED, PLACED, BOUND, RUNNING).counts() == Counts(running=1)


@pytest.mark.parametrize(
    ("detail", "counts"),
    [
        ({"verdict": "Finished", "succeeded": True}, Counts(done=1)),
        ({"verdict": "Finished"}, Counts(failed=1)),
        ({"verdict": "Released"}, Counts(pending=1)),
        ({"verdict": "Finished", "succeeded": True, "late": True}, Counts(placed=1)),
    ],
    ids=["succeeded", "failed", "released", "late verdicts change nothing"],
)
def test_verdicts(detail: dict[str, Any], counts: Counts) -> None:
    assert after(SUBMITTED, PLACED, decision(5, "GaveUp", "l.1", cluster="eu", **detail)).counts() == counts


def test_the_end_of_a_fence_ends_the_homes_in_that_cluster_only() -> None:
    other = [decision(6, "Submitted", "l.6"), decision(7, "Placed", "l.6", cluster="us")]
    progress = after(SUBMITTED, PLACED, *other, decision(8, "FenceDone", cluster="eu"))
    assert progress.counts() == Counts(pending=1, placed=1)
    assert (progress.homes("eu"), progress.homes("us")) == (set(), {"l.6"})


def test_the_head_of_the_queue_has_waited_longest() -> None:
    assert after(decision(10, "Submitted", "l.10"), decision(11, "Submitted", "l.9")).head() == "l.9"
    assert after(SUBMITTED, PLACED).head() is None


def test_latency_counts_from_submission_to_the_first_binding() -> None:
    again = [decision(5, "Placed", "l.1", cluster="us"), decision(6, "Bound", "l.1", at_ms=9_000, cluster="us")]
    assert after(SUBMITTED, PLACED, BOUND, *again).latency() == Latency(0.4, 0.4, 1)


def test_decisions_per_second_are_those_of_late() -> None:
    progress = after(*(decision(n, "Submitted", f"l.{n}") for n in range(10)))
    progress.take(decision(20 + n, "Placed", f"l.{n}", at_ms=1_000 * n, cluster="eu") for n in range(10))
    assert progress.rate(10_000) == 1.0


@pytest.mark.parametrize(("share", "value"), [(0.5, 2), (0.51, 3), (0.99, 4), (1.0, 4)])
def test_percentiles(share: float, value: int) -> None:
    assert percentile([1, 2, 3, 4], share) == value
