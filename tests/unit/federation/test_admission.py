"""What people may ask for, and what they are told when they may not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from federation.core import admission
from federation.core.admission import PENDING_MAX, FenceFirst, admit
from federation.core.events import (
    Accepted,
    ApplyQueue,
    ConfirmDead,
    CordonCluster,
    Declined,
    JoinCluster,
    PersonRequest,
    Refused,
    RemoveCluster,
    SetIntent,
    SubmitGroup,
)
from federation.core.records import (
    ClusterAdmitted,
    ClusterConfirmedDead,
    ClusterJoined,
    ClusterRemoved,
    IntentSet,
    QueueApplied,
    Submitted,
)
from federation.core.rows import Intent
from federation.core.stored import canonical_json, unpack_spec
from placement.model import ClusterName, DisconnectPolicy, GpuRequest, Phase, PodGroup, Queue, Role
from tests.unit.federation.pump import pod_group
from tests.unit.federation.story import Story


def declined(outcome: object) -> Refused:
    assert isinstance(outcome, Declined), outcome
    return outcome.why


def with_container(resources: dict[str, Any], **role: Any) -> PodGroup:
    container = {"name": "main", "image": "train", "resources": resources}
    return PodGroup(name="train", roles=(Role(template={"spec": {"containers": [container]}}, **role),))


def submit(group: PodGroup, request_id: str = "r-1") -> SubmitGroup:
    return SubmitGroup(group, request_id, "sara")


def test_a_submission_becomes_a_record_that_holds_the_whole_manifest() -> None:
    group = pod_group("train", pods=2, gpus=4, labels={"team": "vision"})
    record = Story().admit(submit(group))
    assert isinstance(record, Submitted)
    assert unpack_spec(record.spec) == group
    assert [(role.name, role.count, role.gpus) for role in record.roles] == [("worker", 2, 4)]
    assert (record.actor, record.request_id, record.min_count) == ("sara", "r-1", 2)


def test_requests_are_read_from_the_template_in_whole_milli_cpus_and_mebibytes() -> None:
    group = with_container({"requests": {"cpu": "1500m", "memory": "1Gi"}, "limits": {"nvidia.com/gpu": "2"}})
    record = Story().admit(submit(group))
    assert isinstance(record, Submitted)
    role = record.roles[0]
    assert (role.cpu_milli, role.memory_mib, role.gpus) == (1500, 1024, 2)


def test_gpus_said_twice_must_agree() -> None:
    group = with_container({"limits": {"nvidia.com/gpu": 2}}, gpu=GpuRequest(whole=4))
    outcome = Story().admit(submit(group))
    assert outcome == Declined(Refused.BAD_TEMPLATE, "says 4 whole GPUs, the template's limits say 2", "roles[0].gpu")


def test_gpus_that_no_container_asks_for_are_refused() -> None:
    group = with_container({"limits": {"cpu": 2}}, gpu=GpuRequest(whole=4))
    assert Story().admit(submit(group)) == Declined(
        Refused.BAD_TEMPLATE,
        "says 4 whole GPUs, and no container of the template has a limit of nvidia.com/gpu",
        "roles[0].gpu",
    )


def test_what_a_template_requires_and_nobody_gives_is_not_taken() -> None:
    spread = [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]
    group = PodGroup(name="g", roles=(Role(template={"spec": {"topologySpreadConstraints": spread}}),))
    assert Story().admit(submit(group)) == Declined(
        Refused.NOT_TAKEN,
        "pods are not spread; whenUnsatisfiable must be ScheduleAnyway, is 'DoNotSchedule'",
        "roles[0].template.spec.topologySpreadConstraints[0].whenUnsatisfiable",
    )


def test_the_same_request_again_is_answered_with_the_same_group() -> None:
    story = Story()
    uid = story.submit("train", request_id="r-1")
    repeat = story.admit(submit(pod_group("train")))
    assert repeat == Accepted(8192, uid)


def test_a_request_id_with_another_body_is_a_conflict() -> None:
    story = Story()
    story.submit("train", request_id="r-1")
    assert declined(story.admit(submit(pod_group("train", pods=2)))) is Refused.REQUEST_ID_CONFLICT


def test_a_request_id_used_for_another_act_is_a_conflict() -> None:
    story = Story()
    uid = story.submit("train", request_id="r-1")
    assert declined(story.admit(SetIntent(uid, "cancel", "", "r-1", "sara"))) is Refused.REQUEST_ID_CONFLICT


def test_the_same_act_again_is_answered_even_when_it_would_be_refused_now() -> None:
    story = Story()
    uid = story.submit("train")
    cancel = SetIntent(uid, "suspend", "", "r-2", "sara")
    record = story.admit(cancel)
    at = story.record(record)
    story.intend(uid, "cancel")
    assert story.admit(cancel) == Accepted(at, uid)


def test_a_name_in_use_is_refused_in_its_namespace_only() -> None:
    story = Story()
    story.submit("train")
    assert declined(story.admit(submit(pod_group("train")))) is Refused.NAME_TAKEN
    assert isinstance(story.admit(submit(pod_group("train", namespace="other"))), Submitted)


def test_an_unknown_queue_is_refused() -> None:
    assert declined(Story().admit(submit(pod_group("train", queue="nope")))) is Refused.UNKNOWN_QUEUE


@pytest.mark.parametrize(("in_batch", "taken"), [(PENDING_MAX - 1, True), (PENDING_MAX, False)])
def test_pending_groups_are_limited(in_batch: int, taken: bool) -> None:
    outcome = admit(Story().state, submit(pod_group("train")), at_ms=0, pending_extra=in_batch)
    assert isinstance(outcome, tuple) == taken


def test_manifests_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    group = pod_group("train")
    record = Story().admit(submit(group))
    assert isinstance(record, Submitted)
    size = len(canonical_json(group))
    monkeypatch.setattr(admission, "SPEC_JSON_BYTES_MAX", size)
    assert isinstance(Story().admit(submit(group)), Submitted)
    monkeypatch.setattr(admission, "SPEC_JSON_BYTES_MAX", size - 1)
    assert declined(Story().admit(submit(group))) is Refused.LIMIT


def test_a_template_that_no_json_can_hold_is_refused() -> None:
    group = PodGroup(name="train", roles=(Role(template={"spec": {"odd": "\ud800"}}),))
    assert declined(Story().admit(submit(group))) is Refused.BAD_TEMPLATE


@pytest.mark.parametrize(
    "request_of",
    [
        lambda uid: SetIntent(uid, "cancel", "\ud800", "r-9", "sara"),
        lambda uid: SetIntent(uid, "cancel", "", "\ud800", "sara"),
        lambda _: SubmitGroup(pod_group("other"), "\ud800", "sara"),
        lambda _: CordonCluster("a", cordoned=True, drain=False, reason="\ud800", request_id="r-9", actor="olga"),
        lambda _: JoinCluster("b", "fast", (("region", "\ud800"),), False, "r-9", "olga"),
    ],
    ids=["a reason", "a request id", "a submission's request id", "a cordon's reason", "a label"],
)
def test_half_of_a_pair_that_no_record_can_hold_is_refused(request_of: Callable[[str], PersonRequest]) -> None:
    """Whoever cancelled a group with such a reason ended the leader, and by repeating it every server."""
    story = Story()
    story.cluster("a")
    uid = story.submit("train")
    assert declined(story.admit(request_of(uid))) is Refused.INVALID


def test_a_template_nested_without_end_is_refused() -> None:
    nested: dict[str, Any] = {}
    for _ in range(100_000):
        nested = {"x": nested}
    group = PodGroup.model_construct(name="train", roles=(Role.model_construct(template=nested),))
    assert declined(Story().admit(submit(group))) is Refused.BAD_TEMPLATE


def test_records_are_limited() -> None:
    many = tuple((f"key-{index}", "v" * 10_000) for index in range(64))
    assert declined(Story().admit(JoinCluster("a", "fast", many, False, "", "olga"))) is Refused.LIMIT


@pytest.mark.parametrize(("length", "taken"), [(128, True), (129, False)])
def test_request_ids_are_limited(length: int, taken: bool) -> None:
    assert isinstance(Story().admit(submit(pod_group("train"), "r" * length)), Submitted) == taken


def test_the_queue_settles_the_disconnect_policy_of_groups_that_name_none() -> None:
    story = Story()
    story.record(QueueApplied(name="default", disconnect_policy="HoldInPlace"))
    silent = story.admit(submit(pod_group("train")))
    outspoken = story.admit(submit(pod_group("train", disconnect_policy=DisconnectPolicy.STOP_AND_MOVE)))
    assert isinstance(silent, Submitted)
    assert isinstance(outspoken, Submitted)
    assert (silent.disconnect_policy, outspoken.disconnect_policy) == ("HoldInPlace", "StopAndMove")


def test_intents_are_judged_by_what_became_of_the_group() -> None:
    story = Story()
    uid = story.submit("train")
    assert isinstance(story.admit(SetIntent(uid, "suspend", "", "", "sara")), IntentSet)
    assert isinstance(story.admit(SetIntent(uid, "run", "", "", "sara")), Accepted)  # it is so already
    assert isinstance(story.admit(SetIntent(uid, "move", "", "", "sara")), Accepted)  # nothing to move
    assert declined(story.admit(SetIntent(uid, "explode", "", "", "sara"))) is Refused.INVALID
    assert declined(story.admit(SetIntent("nobody", "run", "", "", "sara"))) is Refused.UNKNOWN_GROUP
    story.intend(uid, "cancel")
    assert isinstance(story.admit(SetIntent(uid, "cancel", "", "", "sara")), Accepted)
    assert declined(story.admit(SetIntent(uid, "run", "", "", "sara"))) is Refused.GROUP_FINISHED


def test_who_waits_after_a_home_it_had_is_resumed_on_record_and_who_was_never_placed_is_not() -> None:
    story = Story()
    story.cluster("a")
    uid = story.submit("train")
    resume = SetIntent(uid, "run", "", "r-2", "sara")
    assert isinstance(story.admit(resume), Accepted)
    story.place(uid, "a")
    assert isinstance(story.admit(resume), Accepted)
    story.gave_up(uid, "Refused", reasons=("ApiError",))
    story.record(story.admit(resume))
    assert (story.row(uid).phase, story.row(uid).intent) == (Phase.PENDING, Intent.RUN)
    assert [key[2] for key in story.state.pending] == [uid]


def test_a_cancel_under_way_is_final() -> None:
    story = Story()
    story.cluster("a")
    uid = story.submit("train")
    story.place(uid, "a")
    story.intend(uid, "cancel")
    assert declined(story.admit(SetIntent(uid, "run", "", "", "sara"))) is Refused.INVALID


@pytest.mark.parametrize(
    ("name", "taken"), [("eu-1", True), ("a" * 63, True), ("a" * 64, False), ("eu.1", False), ("-eu", False)]
)
def test_a_cluster_name_is_one_token_of_a_bus_subject(name: str, taken: bool) -> None:
    outcome = Story().admit(JoinCluster(name, "fast", (), False, "", "olga"))
    assert isinstance(outcome, ClusterJoined) == taken


def test_a_lease_class_must_be_one_of_ours() -> None:
    assert declined(Story().admit(JoinCluster("eu-1", "sloppy", (), False, "", "olga"))) is Refused.INVALID


def test_clusters_are_limited_but_those_inside_may_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "CLUSTERS_MAX", 1)
    story = Story()
    story.cluster("a")
    assert isinstance(story.admit(JoinCluster("a", "fast", (), True, "", "olga")), ClusterJoined)
    assert declined(story.admit(JoinCluster("b", "fast", (), True, "", "olga"))) is Refused.LIMIT


def test_unknown_clusters_are_neither_cordoned_nor_dead() -> None:
    story = Story()
    assert declined(story.admit(CordonCluster("x", True, False, "", "", "olga"))) is Refused.UNKNOWN_CLUSTER
    assert declined(story.admit(ConfirmDead("x", "burnt", "", "olga"))) is Refused.UNKNOWN_CLUSTER


def test_only_a_fenced_cluster_is_recorded_as_dead_and_only_with_a_reason() -> None:
    story = Story()
    story.cluster("a")
    assert story.admit(ConfirmDead("a", "burnt", "", "olga")) == FenceFirst(ClusterName("a"))
    story.fenced("a", 2)
    assert declined(story.admit(ConfirmDead("a", " ", "", "olga"))) is Refused.INVALID
    assert isinstance(story.admit(ConfirmDead("a", "burnt", "", "olga")), ClusterConfirmedDead)


def remove(story: Story, cluster: str, **fields: Any) -> Any:
    return story.admit(RemoveCluster(cluster, "sold", "", "olga"), **fields)


def test_a_cluster_that_was_never_admitted_is_removed_at_once() -> None:
    story = Story()
    story.record(ClusterJoined(cluster="a"))
    assert isinstance(remove(story, "a"), ClusterRemoved)
    story.fenced("a", 1)  # its first lease stands
    assert isinstance(remove(story, "a"), ClusterRemoved)
    assert declined(remove(story, "x")) is Refused.UNKNOWN_CLUSTER


def test_a_cluster_that_was_admitted_is_removed_once_it_is_confirmed_dead() -> None:
    story = Story()
    story.cluster("a")
    story.place(story.submit(), "a")
    assert remove(story, "a").detail == "1 groups are at home in a"
    story.fenced("a", 2)
    story.fence_done("a", 2, 600)  # its home has ended, but something may still run there
    assert declined(remove(story, "a")) is Refused.CLUSTER_IN_USE
    assert remove(story, "a").detail == "a was admitted, and nobody has confirmed that nothing runs there"
    story.confirmed_dead("a")
    assert isinstance(remove(story, "a"), ClusterRemoved)
    story.record(ClusterAdmitted(cluster="a", epoch=2))  # it is back
    assert declined(remove(story, "a")) is Refused.CLUSTER_IN_USE


def test_in_a_store_of_an_older_format_no_cluster_is_removed() -> None:
    story = Story()
    story.record(ClusterJoined(cluster="a"))
    assert declined(remove(story, "a", store_format=4)) is Refused.NOT_TAKEN
    assert isinstance(remove(story, "a", store_format=5), ClusterRemoved)


def test_a_queue_is_written_whole() -> None:
    queue = Queue(name="research", weight=2, gpu_quota={"A100": 8, "*": 16})
    record = Story().admit(ApplyQueue(queue, "r", "olga"))
    assert isinstance(record, QueueApplied)
    assert (record.name, record.weight, record.gpu_quota) == ("research", 2, {"*": 16, "A100": 8})
