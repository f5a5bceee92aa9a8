"""The life of a PodGroup, one test per hop of DESIGN §6; `docs/architecture.md` tells it in prose."""

from __future__ import annotations

import hashlib
from typing import Any

from federation.core.events import Accepted, Declined, Refused, SubmitGroup
from federation.core.rows import GiveUp
from federation.manifests import dialects
from federation.protocol.messages import Doorbell, Verdict
from federation.server.tokens import Principal, Principals
from placement.model import Phase
from storage.blob import BlobCreate, BlobEffect, BlobEvent, BlobWritten, Outcome
from storage.entry import seq_of
from tests.unit.cluster_agents.rig import CLUSTER
from tests.unit.federation.pump import pod_group, started
from tests.unit.hops.fleet import Fleet, hold_placements, manifest

T_UNDO_S = 60.0


def no_write_lands(_: str, effect: BlobEffect) -> BlobEvent | None:
    """The store takes no journal entry; nobody can tell."""
    if isinstance(effect, BlobCreate) and effect.name.startswith("journal/"):
        return BlobWritten(effect.op, Outcome.UNKNOWN)
    return None


def test_hop_1_a_manifest_becomes_one_pod_group_per_request_id_with_its_caller_as_actor() -> None:
    pump = started()
    principals = Principals({hashlib.sha256(b"s3cret").digest(): Principal("sara")})
    caller = principals.of_token("s3cret")
    assert caller is not None
    group = dialects.read_group(manifest("train", pods=2))
    first = pump.ask(SubmitGroup(group, "nightly-7", caller.name))
    assert isinstance(first, Accepted)
    assert pump.ask(SubmitGroup(group, "nightly-7", caller.name)) == first
    other = dialects.read_group(manifest("train", pods=3))
    refused = pump.ask(SubmitGroup(other, "nightly-7", caller.name))
    assert isinstance(refused, Declined)
    assert refused.why is Refused.REQUEST_ID_CONFLICT
    assert [(row.name, row.request.pods, row.actor) for row in pump.state.groups.values()] == [("train", 2, "sara")]


def test_hop_2_a_submission_is_answered_once_its_batch_has_landed_and_what_came_meanwhile_is_the_next() -> None:
    pump = started()
    pump.on_store = no_write_lands
    tickets = []
    for name in ("first", "second", "third"):
        assert pump.ask(SubmitGroup(pod_group(name), name, "sara")) is None
        tickets.append(pump.last_ticket)
    pump.on_store = None
    pump.run(30.0)
    answers = [pump.answer(ticket) for ticket in tickets]
    entries = [seq_of(answer.position) for answer in answers if isinstance(answer, Accepted)]
    assert len(entries) == 3
    assert [entry - entries[0] for entry in entries] == [0, 1, 1]


def test_hop_3_a_folded_submission_waits_in_its_queue_by_priority_then_age() -> None:
    pump = started()
    for name, priority in (("old", 0), ("urgent", 9), ("young", 0)):
        pump.submit(name, priority=priority)
    assert [row.name for row in pump.state.pending_groups()] == ["urgent", "old", "young"]


def test_hop_4_the_engine_places_what_fits_and_leaves_no_record_of_what_does_not() -> None:
    fleet = Fleet(nodes=2)
    large = fleet.submit(manifest("large", pods=3))
    small = fleet.submit(manifest("small", pods=2))
    assert fleet.records(small) == ["Submitted", "Placed"]
    assert fleet.records(large) == ["Submitted"]
    why = fleet.pump.leader.why(large)
    assert why is not None
    assert [(answer.cluster, answer.because[0].reason.code) for answer in why.clusters] == [
        (CLUSTER, "LargerThanCluster")
    ]


def test_hop_5_a_plan_lands_in_one_batch_and_nothing_leaves_before() -> None:
    pump = started()
    uids = [pump.submit(name) for name in ("first", "second")]
    tried = hold_placements(pump)
    (east,) = pump.join("east")
    assert tried == [uids]
    desired = east.desired()
    assert desired is not None
    assert desired.groups == ()
    assert pump.rung == []

    pump.on_store = None
    pump.run(5.0)
    homes = [pump.group(uid).home for uid in uids]
    positions = [home.token.position for home in homes if home is not None]
    assert [at - positions[0] for at in positions] == [0, 1]
    assert pump.rung == [("east", Doorbell(cluster="east", position=positions[1]))]


def test_hop_6_a_doorbell_makes_the_agent_look_at_once_and_a_lost_one_only_delays_it() -> None:
    fleet = Fleet()
    heard = fleet.submit(manifest("heard", pods=1))
    fleet.advance(1.0)
    assert len(fleet.rig.pods(fleet.token(heard))) == 1

    fleet.doorbells_arrive = False
    unheard = fleet.submit(manifest("unheard", pods=1))
    fleet.advance(1.0)
    assert fleet.rig.pods(fleet.token(unheard)) == []
    fleet.advance(10.0)
    assert len(fleet.rig.pods(fleet.token(unheard))) == 1


def test_hop_7_the_agent_acts_on_the_answer_of_any_server() -> None:
    fleet = Fleet(servers=2)
    fleet.wire.desired_from = next(name for name in fleet.pump.up if not fleet.pump.replicas[name].leading)
    uid = fleet.submit(manifest("train"))
    fleet.advance(10.0)
    assert fleet.group(uid).phase is Phase.RUNNING


def test_hop_7_an_answer_older_than_the_admission_is_not_acted_on() -> None:
    fleet = Fleet()
    fleet.rig.restart()  # it knows nothing but what it is told from now on
    fleet.wire.answers_as_of = fleet.pump.cluster(CLUSTER).admitted_at - 1
    uid = fleet.submit(manifest("train"))
    fleet.advance(15.0)
    assert fleet.rig.pods() == []

    fleet.wire.answers_as_of = None
    fleet.advance(15.0)
    assert len(fleet.rig.live(fleet.token(uid))) == 2


def test_hop_8_the_assignment_is_saved_in_the_cluster_before_any_pod_is_made() -> None:
    fleet = Fleet()
    uid = fleet.submit(manifest("train"))
    fleet.rig.calls.clear()
    fleet.advance(5.0)
    created = [call.path.rsplit("/", 1)[1] for call in fleet.rig.calls if call.method == "POST"]
    assert created == ["configmaps", "services", "pods", "pods", "binding", "binding"]
    nodes = {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in fleet.rig.pods(fleet.token(uid))}
    assert sorted(nodes.values()) == ["n-1", "n-2"]


def test_hop_8_a_group_that_does_not_fit_any_more_is_refused_with_the_reason() -> None:
    fleet = Fleet(nodes=2)
    fleet.reports_arrive = False  # the placer decides on what it saw last
    fleet.rig.set_node("n-2", lambda seen: seen | {"spec": seen.get("spec", {}) | {"unschedulable": True}})
    uid = fleet.submit(manifest("train", pods=2))
    assert fleet.group(uid).phase is Phase.PLACED
    fleet.advance(5.0)
    row = fleet.group(uid)
    assert (row.home, row.last_verdict, row.last_reasons) == (None, GiveUp.REFUSED, ("InsufficientGpus",))
    assert fleet.rig.sent("POST", "/pods") == []


def test_hop_9_a_gang_is_bound_when_all_its_pods_are() -> None:
    fleet = Fleet()
    uid = fleet.submit(manifest("train"))

    def second_comes_later(call: Any) -> int | None:
        bindings = [one.path for one in fleet.rig.sent("POST", "/binding")]
        return 503 if len(bindings) == 2 and call.path == bindings[1] else None

    fleet.rig.override = second_comes_later
    while fleet.rig.bound(fleet.token(uid)) < 1:
        fleet.advance(0.25)
    assert fleet.wire.heard(fleet.token(uid)) == []
    fleet.advance(2.0)
    assert fleet.wire.heard(fleet.token(uid))[0] == "Bound"
    assert fleet.group(uid).pods_bound == 2


def test_hop_9_a_gang_that_cannot_be_bound_whole_is_undone_within_t_undo_and_refused_when_all_has_ended() -> None:
    fleet = Fleet()

    def second_pod_is_never_bound(call: Any) -> int | None:
        bindings = list(dict.fromkeys(one.path for one in fleet.rig.sent("POST", "/binding")))
        return 429 if call.path in bindings[1:] else None

    fleet.rig.override = second_pod_is_never_bound
    uid = fleet.submit(manifest("train"))
    token = fleet.token(uid)
    while fleet.rig.bound(token) < 1:
        fleet.advance(0.25)
    half_bound_s = fleet.rig.now_s
    while not fleet.wire.verdicts:
        assert fleet.rig.now_s - half_bound_s <= T_UNDO_S
        fleet.advance(0.25)
    assert [verdict.verdict for verdict in fleet.wire.verdicts] == ["Refused"]
    assert fleet.wire.live_at_verdict == [0]
    assert fleet.group(uid).last_verdict is GiveUp.REFUSED


def test_hop_10_a_verdict_counts_when_the_leader_has_it_in_the_journal_and_is_sent_again_until_then() -> None:
    fleet = Fleet(servers=2)
    fleet.wire.takes_verdicts = False
    uid = fleet.submit(manifest("train"))
    fleet.advance(10.0)
    token = fleet.token(uid)
    assert fleet.wire.verdict_names(token).count("Bound") >= 2
    assert fleet.group(uid).phase is Phase.PLACED
    ask = Verdict(ask_id=1, cluster=CLUSTER, uid=uid, token=token, verdict="Bound", pods=2)
    follower = next(name for name in fleet.pump.up if not fleet.pump.replicas[name].leading)
    assert fleet.pump.ask_agent(CLUSTER, ask, server=follower) is None

    fleet.wire.takes_verdicts = True
    fleet.advance(20.0)
    assert fleet.records(uid) == ["Submitted", "Placed", "Bound", "Running"]
    fleet.wire.verdicts.clear()
    fleet.advance(30.0)
    assert fleet.wire.verdicts == []


def test_hop_11_an_outcome_is_kept_by_its_pods_then_by_the_ledger_until_it_is_acknowledged() -> None:
    fleet = Fleet()
    uid = fleet.submit(manifest("train", run_s=5.0))
    fleet.advance(5.0)
    assert fleet.group(uid).phase is Phase.RUNNING
    fleet.rig.override = lambda call: 503 if call.path.endswith("/muster-ledger") and call.method != "GET" else None
    fleet.advance(10.0)
    assert [pod["status"]["phase"] for pod in fleet.rig.pods()] == ["Succeeded", "Succeeded"]
    assert [pod["metadata"]["finalizers"] for pod in fleet.rig.pods()] == [["muster.io/outcome"]] * 2

    fleet.rig.override = lambda _: None
    fleet.wire.takes_verdicts = False
    fleet.advance(20.0)
    assert fleet.rig.pods() == []
    assert [(entry.uid, entry.verdict) for entry in fleet.rig.agent.ledger.entries()] == [(uid, "Finished")]
    assert fleet.group(uid).phase is Phase.RUNNING

    fleet.wire.takes_verdicts = True
    fleet.advance(20.0)
    assert fleet.group(uid).phase is Phase.SUCCEEDED
    assert fleet.rig.agent.ledger.entries() == []


def test_hop_11_the_disruption_mode_decides_what_the_loss_of_one_member_means() -> None:
    fleet = Fleet()
    loses_all = fleet.submit(manifest("all", pods=2, gpus=4))
    goes_on = fleet.submit(manifest("single", gpus=4, disruption_mode="single", min_count=1, role={"min_count": 1}))
    fleet.advance(5.0)
    tokens = [fleet.token(uid) for uid in (loses_all, goes_on)]
    for token in tokens:
        name = fleet.rig.pods(token)[0]["metadata"]["name"]
        fleet.rig.request("DELETE", f"/api/v1/namespaces/default/pods/{name}")
    fleet.advance(10.0)
    assert fleet.wire.given_up(tokens[0]).reasons == ("MemberLost",)
    assert fleet.rig.live(tokens[0]) == []
    assert fleet.group(goes_on).phase is Phase.RUNNING
    assert len(fleet.rig.live(tokens[1])) == 1


def test_hop_12_freed_capacity_returns_with_the_report_that_covers_it() -> None:
    fleet = Fleet(nodes=2)
    running, waiting = fleet.submit(manifest("running")), fleet.submit(manifest("waiting"))
    fleet.advance(5.0)
    fleet.pump.intend(running, "cancel")
    fleet.exchange()
    fleet.reports_arrive = False
    fleet.advance(10.0)
    assert fleet.group(running).phase is Phase.CANCELLED
    assert fleet.group(waiting).phase is Phase.PENDING

    fleet.reports_arrive = True
    fleet.advance(5.0)
    view = fleet.pump.leader.views.get(fleet.pump.cluster(CLUSTER).name)
    assert view is not None
    assert view.applied >= fleet.group(running).changed_at
    assert fleet.group(waiting).phase is Phase.RUNNING


def test_the_members_of_a_gang_find_one_another() -> None:
    fleet = Fleet()
    uid = fleet.submit(manifest("train"))
    fleet.advance(5.0)
    pods = fleet.rig.pods(fleet.token(uid))
    env = [{one["name"]: one["value"] for one in pod["spec"]["containers"][0]["env"]} for pod in pods]
    (service,) = fleet.rig.objects("services")
    leader = pods[0]["metadata"]["name"]
    assert [one.pop("MUSTER_RANK") for one in env] == ["0", "1"]
    assert (
        env
        == [
            {
                "MUSTER_GROUP": "train",
                "MUSTER_ROLE": "worker",
                "MUSTER_WORLD_SIZE": "2",
                "MUSTER_FENCE_TOKEN": fleet.token(uid),
                "MUSTER_LEADER_ADDR": f"{leader}.{service}.default.svc",
            }
        ]
        * 2
    )
