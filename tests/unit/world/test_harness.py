"""The world's own parts keep their promises: time, network, store, trace and the draw of a seed."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from cluster_agents.simkube.apiserver.types import ApiRequest
from federation.protocol.messages import Report, Stamp
from storage.blob import (
    BlobCreate,
    BlobEvent,
    BlobGet,
    BlobName,
    BlobRead,
    BlobReplace,
    BlobWritten,
    OpId,
    Outcome,
    Version,
)
from tests.world.draw import CALM, DRAMAS, LIVENESS_S_MIN, GroupShape, Restores, Weather, draw
from tests.world.network import Network
from tests.world.scheduler import Clock, Scheduler
from tests.world.settled import fits
from tests.world.store import STORE_TIMEOUT_S, SimStore
from tests.world.trace import Trace
from tests.world.violation import ViolationError
from tests.world.world import World


def weather(**changes: float) -> Weather:
    calm = {name: getattr(CALM, name) for name in CALM.__slots__}
    return Weather(**{**calm, **changes})


def test_actions_run_by_time_and_then_in_the_order_they_were_scheduled() -> None:
    scheduler, ran = Scheduler(), []
    for name, when_s in (("late", 2.0), ("first", 1.0), ("second", 1.0)):
        scheduler.at(when_s, ran.append, name)
    scheduler.run_until(1.5)
    assert (ran, scheduler.now_s) == (["first", "second"], 1.5)


def test_a_fast_clock_shows_a_local_time_sooner() -> None:
    clock = Clock(1.015, 100.0)
    assert clock.local(1000.0) == pytest.approx(1115.0)
    assert clock.local(clock.virtual(1115.0)) >= 1115.0


def test_a_cut_direction_swallows_messages_until_every_cut_of_it_heals() -> None:
    scheduler, heard = Scheduler(), []
    network = Network(scheduler, random.Random(1), CALM)
    network.cut(["bus>c-1/a"])
    network.cut(["bus>c-1/a"])
    network.send(0.01, ("bus>c-1/a",), heard.append, "lost")
    network.heal(["bus>c-1/a"])
    network.send(0.01, ("bus>c-1/a",), heard.append, "lost too")
    network.send(0.01, ("bus<c-1/a",), heard.append, "other way")
    network.heal(["bus>c-1/a"])
    network.send(0.01, ("bus>c-1/a",), heard.append, "healed")
    scheduler.run_until(10.0)
    assert sorted(heard) == ["healed", "other way"]


def store(conditions: Weather) -> tuple[Scheduler, SimStore]:
    scheduler = Scheduler()
    network = Network(scheduler, random.Random(1), conditions)
    return scheduler, SimStore(scheduler, network, random.Random(2))


def call(scheduler: Scheduler, blobs: SimStore, effect: BlobCreate | BlobReplace | BlobGet) -> BlobEvent:
    answers: list[BlobEvent] = []
    blobs.call("s-1", "s-1#1", effect, answers.append)
    scheduler.run_until(scheduler.now_s + STORE_TIMEOUT_S + 1.0)
    (answer,) = answers
    return answer


def create(name: str, data: bytes = b"x") -> BlobCreate:
    return BlobCreate(OpId(1), BlobName(name), data)


def held(blobs: SimStore, name: str) -> bytes | None:
    blob = blobs.blobs.get(name)
    return blob.data if blob is not None else None


def test_the_store_creates_once_and_replaces_only_the_version_named() -> None:
    scheduler, blobs = store(CALM)
    made = call(scheduler, blobs, create("leases/a"))
    assert made == BlobWritten(OpId(1), Outcome.DONE, Version("1"))
    assert call(scheduler, blobs, create("leases/a")) == BlobWritten(OpId(1), Outcome.REFUSED)
    stale = BlobReplace(OpId(2), BlobName("leases/a"), b"y", Version("0"))
    assert call(scheduler, blobs, stale) == BlobWritten(OpId(2), Outcome.REFUSED)
    good = BlobReplace(OpId(3), BlobName("leases/a"), b"z", Version("1"))
    assert call(scheduler, blobs, good) == BlobWritten(OpId(3), Outcome.DONE, Version("2"))
    read = call(scheduler, blobs, BlobGet(OpId(4), BlobName("leases/a")))
    assert isinstance(read, BlobRead)
    assert read.blob is not None
    assert read.blob.data == b"z"


def test_a_lost_reply_leaves_the_write_applied_and_its_outcome_unknown() -> None:
    scheduler, blobs = store(weather(reply_lost=1.0))
    assert call(scheduler, blobs, create("leases/a")) == BlobWritten(OpId(1), Outcome.UNKNOWN)
    assert held(blobs, "leases/a") == b"x"


def test_an_unknown_outcome_may_be_a_write_that_never_landed() -> None:
    scheduler, blobs = store(weather(not_applied=1.0))
    assert call(scheduler, blobs, create("leases/a")) == BlobWritten(OpId(1), Outcome.UNKNOWN)
    scheduler.run_until(1_000.0)
    assert held(blobs, "leases/a") is None


def test_an_unknown_outcome_may_be_a_write_that_lands_later() -> None:
    scheduler, blobs = store(weather(lands_late=1.0, late_s=100.0))
    assert call(scheduler, blobs, create("leases/a")) == BlobWritten(OpId(1), Outcome.UNKNOWN)
    before = held(blobs, "leases/a")
    scheduler.run_until(200.0)
    assert (before, held(blobs, "leases/a")) == (None, b"x")


def test_replacing_a_journal_entry_breaks_s9() -> None:
    _, blobs = store(CALM)
    rewrite = BlobReplace(OpId(1), BlobName("journal/00/0000000000000001"), b"y", Version("1"))
    with pytest.raises(ViolationError) as caught:
        blobs.call("s-1", "s-1#1", rewrite, lambda event: None)
    assert caught.value.checker == "S9"


def test_the_trace_hash_depends_on_every_line_and_its_order() -> None:
    def digest(*lines: str) -> str:
        trace = Trace()
        for line in lines:
            trace.note(1.0, "s-1", line)
        return trace.digest()

    assert digest("a", "b") == digest("a", "b")
    assert len({digest("a", "b"), digest("b", "a"), digest("a"), digest("a", "c")}) == 4


def test_equal_seeds_draw_equal_settings_and_leave_time_to_settle() -> None:
    setting = draw(7, 15.0)
    assert setting == draw(7, 15.0)
    assert setting != draw(8, 15.0)
    assert setting.end_s - setting.safety_s >= LIVENESS_S_MIN
    assert 5 <= len(setting.clusters) <= 12
    assert len(setting.groups) == 100


def shape(*, pods: int, gpus: int, level: str) -> GroupShape:
    group = draw(0, 15.0).groups[0]
    fields = {name: getattr(group, name) for name in group.__slots__}
    return GroupShape(**{**fields, "pods": pods, "gpus": gpus, "level": level})


@pytest.mark.parametrize(
    ("level", "free", "has_room"),
    [
        ("", [4, 0, 0, 0, 4], True),
        ("", [4, 3, 0, 0, 3], False),
        ("clique", [4, 0, 0, 4, 0], True),
        ("clique", [4, 0, 0, 0, 4], False),
        ("host", [4, 4, 4, 4, 4], False),
        ("host", [0, 8, 0, 0, 0], True),
    ],
)
def test_a_group_of_two_pods_with_four_gpus_fits_by_its_level(level: str, free: list[int], *, has_room: bool) -> None:
    assert fits(shape(pods=2, gpus=4, level=level), free) is has_room


def test_controllers_act_soon_after_a_write_whatever_they_had_planned_before() -> None:
    world = World(3, 15.0)
    cluster = next(iter(world.clusters.values()))
    renewed = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "n"}, "spec": {}}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}
    cluster.handle(ApiRequest("POST", "/api/v1/nodes", {}, node))
    leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
    cluster.handle(ApiRequest("POST", leases, {}, renewed))
    world.scheduler.run_until(10.0)
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "x"}]}}
    spec = {"parallelism": 2, "completions": 2, "template": template}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "train"}, "spec": spec}
    cluster.handle(ApiRequest("POST", "/apis/batch/v1/namespaces/default/jobs", {}, job))
    world.scheduler.run_until(10.5)
    assert len(list(cluster.api.store.each("pods"))) == 2


def test_a_read_shows_what_stood_when_it_reached_the_store() -> None:
    scheduler, blobs = store(CALM)
    call(scheduler, blobs, create("leases/a", b"old"))
    answers: list[BlobEvent] = []
    blobs._bring_back("s-1", BlobGet(OpId(2), BlobName("leases/a")), answers.append, scheduler.now_s, 1.0)
    call(scheduler, blobs, BlobReplace(OpId(3), BlobName("leases/a"), b"new", Version("1")))
    arrived_s = scheduler.now_s - STORE_TIMEOUT_S - 1.0
    blobs._bring_back("s-1", BlobGet(OpId(4), BlobName("leases/a")), answers.append, arrived_s, 1.0)
    blobs._bring_back("s-1", BlobGet(OpId(5), BlobName("leases/a")), answers.append, scheduler.now_s, 1.0)
    assert [one.blob.data for one in answers if isinstance(one, BlobRead) and one.blob is not None] == [
        b"old",
        b"old",
        b"new",
    ]


def test_periods_are_those_of_the_presets_or_a_few_times_slower() -> None:
    drawn = [draw(seed, 15.0) for seed in range(50)]
    assert {setting.timings.lease_read_s for setting in drawn} == {5.0, 10.0}
    assert {setting.timings.local_lease_s for setting in drawn} == {10.0, 20.0}
    assert {setting.timings.desired_poll_s for setting in drawn} == {10.0, 30.0}
    assert {setting.journal_timings.poll_s for setting in drawn} == {1.0, 5.0}


def test_a_report_that_a_process_could_not_know_yet_does_not_forbid_an_older_one_that_comes_late() -> None:
    world = World(3, 15.0)
    server = world.servers[0]
    server.start()
    cluster = next(iter(world.clusters))
    for seq in (9, 8):  # before anything is loaded: both are set aside
        server.report_arrived(cluster, Report(cluster=cluster, lineage="l", stamp=Stamp(1, seq), applied=0))
    world.scheduler.run_until(0.1)
    world.views.delivered(server.caller, cluster, (1, 8), None, 0.0, 1.0)
    world.views.placed(server.caller, cluster, (1, 8), 2.0, ())
    with pytest.raises(ViolationError, match="which it may not hold"):
        world.views.placed(server.caller, cluster, (1, 9), 3.0, ())


@pytest.mark.long
def test_a_restore_is_drawn_beside_all_else_and_never_into_a_drama() -> None:
    seeds = range(60)
    drawn = [draw(seed, 15.0) for seed in seeds]
    always = [draw(seed, 15.0, Restores.ALWAYS) for seed in seeds]
    never = [draw(seed, 15.0, Restores.NEVER) for seed in seeds]
    assert [replace(one, restore=None) for one in drawn] == [replace(one, restore=None) for one in always] == never
    assert 5 <= sum(one.restore is not None for one in drawn) <= 25
    assert {one.focus in DRAMAS for one in always if one.restore is None} == {True}


@pytest.mark.long
def test_a_restored_fleet_takes_up_what_runs_and_people_hand_in_again_what_they_had_handed_in() -> None:
    world = World(0, 6.0, restores=Restores.ALWAYS)
    world.run()
    assert world.restorer.restores_count == 2
    assert world.restorer.recreated_count > 0
    assert len(world.acks.acks) == len(world.setting.groups)
