"""L5's checker fires on what draws more than its share, and stays silent on what does not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from federation.core.records import AnyRecord, Bound, ClusterCordoned, GaveUp, IntentSet, Placed, Quarantined
from storage.entry import position
from tests.world.failing import PROBER, Failing
from tests.world.violation import ViolationError


class Log:
    """Records one after the other, each an entry of its own, a second apart, all under one leader."""

    def __init__(self) -> None:
        self.failing = Failing(cast("Any", SimpleNamespace(store=SimpleNamespace(journal_landed={}))))
        self.now_s = 0.0
        self.seq = 0

    def add(self, *records: AnyRecord) -> None:
        for record in records:
            self.seq += 1
            self.now_s += 1.0
            self.failing.folded(position(self.seq), record, self.now_s)

    def place(self, uid: str, cluster: str, *, probe: bool = False) -> None:
        actor = PROBER if probe else "muster:placer"
        self.add(Placed(uid=uid, cluster=cluster, effective_policy="StopAndMove", actor=actor))

    def lose(self, uid: str, cluster: str, *, probe: bool = False, why: str = "TemplateRefused") -> None:
        self.place(uid, cluster, probe=probe)
        self.add(GaveUp(uid=uid, token="t", cluster=cluster, verdict="Refused", reasons=(why,)))


def fails(count: int) -> Log:
    log = Log()
    for number in range(count):
        log.lose(f"g-{number}", "c-1")
    return log


def test_a_twelfth_group_in_a_cluster_where_eleven_failed_breaks_l5_unless_it_is_a_probe() -> None:
    fails(10).place("next", "c-1")  # ten may be half of twenty
    fails(11).place("next", "c-2")
    fails(11).place("next", "c-1", probe=True)
    with pytest.raises(ViolationError, match="next goes to c-1, where the last 11 groups all failed"):
        fails(11).place("next", "c-1")


@pytest.mark.parametrize(
    "good", [Bound(uid="w", token="t", cluster="c-1", pods=1), ClusterCordoned(cluster="c-1", cordoned=False)]
)
def test_one_that_was_bound_in_between_or_an_operators_word_begins_anew(good: AnyRecord) -> None:
    log = fails(11)
    log.add(good)
    log.place("next", "c-1")


def test_a_seventh_placement_after_six_losses_breaks_l5_and_a_resumed_group_has_a_new_budget() -> None:
    log = Log()
    for number in range(6):
        log.lose("poison", f"c-{number % 3}")
    for begun in (Quarantined(uid="other", losses=6, clusters=()), IntentSet(uid="other", intent="run")):
        log.add(begun)
    with pytest.raises(ViolationError, match="poison is placed again after 6 losses"):
        log.place("poison", "c-0")
    log.add(IntentSet(uid="poison", intent="run"))
    log.place("poison", "c-9")


def test_a_fourth_cluster_breaks_l5_unless_what_was_lost_was_a_probe_or_a_lack_of_room() -> None:
    for innocent in ({"probe": True}, {"why": "InsufficientGpus"}):
        log = Log()
        for cluster in ("c-1", "c-2"):
            log.lose("poison", cluster)
        log.lose("poison", "c-3", **innocent)  # type: ignore[arg-type]
        log.place("poison", "c-4")
    log = Log()
    for cluster in ("c-1", "c-2", "c-3"):
        log.lose("poison", cluster)
    with pytest.raises(ViolationError, match="goes to c-4 after it was lost in"):
        log.place("poison", "c-4")
