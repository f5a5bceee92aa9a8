"""The engine's decisions, read as a specification."""

from __future__ import annotations

from placement.model import Reason
from tests.builders import decision, fleet, gang, on, waits


def test_gang_goes_to_the_tightest_cluster_that_holds_all_of_it() -> None:
    assert decision(fleet(eu=512, us=64), gang("train", pods=8)) == on("us")


def test_gang_one_pod_too_large_waits_whole() -> None:
    assert decision(fleet(eu=64), gang("train", pods=9)) == waits(Reason.LARGER_THAN_CLUSTER)
