"""The life of a group in one cluster, hop by hop (DESIGN §6 rows 7-12): from desired to its landed verdict."""

import msgspec

from cluster_agents.core.ledger import read_page
from cluster_agents.simkube.kubelet import types as kt
from tests.unit.cluster_agents.rig import Rig, node, template


def test_a_desired_group_is_bound_whole_and_reported_bound_then_running() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=3, gpus=2)
    rig.ring()
    rig.advance(5.0)
    assert rig.bound(token) == 3
    assert len(rig.live(token)) == 3
    assert rig.federation.heard(token) == ["Bound", "Running"]


def test_the_intent_is_written_before_any_pod_and_all_pods_exist_before_any_is_bound() -> None:
    rig = Rig().ready()
    rig.federation.place(pods=3)
    rig.ring()
    rig.advance(3.0)
    starts = [call for call in rig.calls if call.write_class == "starts" and "/leases" not in call.path]
    order = [call.path.rsplit("/", 1)[-1] for call in starts]
    assert order == ["configmaps", "services", *["pods"] * 3, *["binding"] * 3]


def test_pods_learn_their_gang_rank_and_leader_and_carry_our_finalizer() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=2)
    rig.ring()
    rig.advance(3.0)
    pod = rig.pods(token)[1]
    env = {one["name"]: one["value"] for one in pod["spec"]["containers"][0]["env"]}
    leader = rig.pods(token)[0]["metadata"]["name"]
    assert env == {
        "MUSTER_GROUP": "train-1",
        "MUSTER_WORLD_SIZE": "2",
        "MUSTER_FENCE_TOKEN": token,
        "MUSTER_ROLE": "worker",
        "MUSTER_RANK": "1",
        "MUSTER_LEADER_ADDR": f"{leader}.{pod['spec']['subdomain']}.default.svc",
    }
    assert pod["metadata"]["finalizers"] == ["muster.io/outcome"]
    assert pod["spec"]["schedulerName"] == "muster"
    assert pod["metadata"]["labels"]["muster.io/group-uid"] == "l1.1"
    assert pod["spec"]["subdomain"] in rig.objects("services")


def test_bindings_name_the_pod_by_uid() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=2)
    rig.ring()
    rig.advance(3.0)
    sent = {call.body["metadata"]["uid"] for call in rig.sent("POST", "/binding") if call.body}
    assert sent == {pod["metadata"]["uid"] for pod in rig.pods(token)}


def test_a_group_whose_pods_all_succeed_is_finished_and_nothing_of_it_is_left() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=2, run_s=10)
    rig.ring()
    rig.advance(30.0)
    verdict = rig.federation.given_up(token)
    assert (verdict.verdict, verdict.succeeded) == ("Finished", True)
    assert rig.pods(token) == []
    assert rig.intents() == []
    assert rig.objects("services") == []
    assert rig.agent.ledger.entries() == []
    assert rig.agent.gangs == {}


def test_one_failed_pod_stops_the_rest_and_the_group_is_finished_without_success() -> None:
    rig = Rig().ready()
    roles = [
        {"name": "good", "count": 2, "template": template()},
        {"name": "bad", "count": 1, "template": template(fail_s=5)},
    ]
    token = rig.federation.place(roles=roles)
    rig.ring()
    rig.advance(20.0)
    verdict = rig.federation.given_up(token)
    assert (verdict.verdict, verdict.succeeded) == ("Finished", False)
    assert rig.live() == []


def test_a_group_of_single_disruption_outlives_a_lost_member_while_min_count_remain() -> None:
    rig = Rig().ready()
    roles = [{"name": "worker", "count": 3, "min_count": 2, "template": template()}]
    token = rig.federation.place(roles=roles, min_count=2, disruption_mode="single")
    rig.run(token)
    rig.request("DELETE", f"/api/v1/namespaces/default/pods/{rig.pods(token)[0]['metadata']['name']}")
    rig.advance(10.0)
    assert len(rig.live(token)) == 2
    rig.request("DELETE", f"/api/v1/namespaces/default/pods/{rig.pods(token)[1]['metadata']['name']}")
    rig.advance(40.0)
    assert rig.federation.given_up(token).reasons == ("MemberLost",)
    assert rig.live(token) == []


def test_a_pod_deleted_by_somebody_ends_the_group_as_member_lost() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=3)
    rig.run(token)
    rig.request("DELETE", f"/api/v1/namespaces/default/pods/{rig.pods(token)[0]['metadata']['name']}")
    rig.advance(40.0)
    verdict = rig.federation.given_up(token)
    assert (verdict.verdict, verdict.reasons) == ("Released", ("MemberLost",))
    assert rig.live(token) == []
    assert rig.pods(token) == []


def test_a_group_that_does_not_fit_is_refused_with_quantities_and_leaves_nothing() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=17)
    rig.ring()
    rig.advance(3.0)
    verdict = rig.federation.given_up(token)
    assert verdict.verdict == "Refused"
    assert "17" in verdict.detail
    assert rig.pods(token) == []
    assert rig.intents() == []
    assert rig.agent.ledger.entries() == []


def test_a_refusal_stands_in_the_ledger_before_it_is_sent() -> None:
    rig = Rig().ready()
    rig.federation.takes_verdicts = False
    token = rig.federation.place(pods=17)
    rig.ring()
    rig.advance(3.0)
    stored = rig.api.store.get("configmaps", ("muster-system", "muster-ledger"))
    assert stored is not None
    assert [(entry.token, entry.verdict) for entry in read_page(stored).entries] == [(token, "Refused")]


def test_a_kubelet_that_rejects_a_pod_before_the_gang_ran_makes_it_refused() -> None:
    rig = Rig(node("n-1"), node("n-2")).ready()
    token = rig.federation.place(pods=2, gpus=8)
    taken = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "stranger"},
        "spec": {
            "nodeName": "n-2",
            "containers": [{"name": "m", "image": "x", "resources": {"limits": {"nvidia.com/gpu": "4"}}}],
        },
    }
    rig.processes[0].watching = False  # the agent's watch does not show the stranger in time
    assert rig.request("POST", "/api/v1/namespaces/default/pods", taken) == 201
    rig.advance(2.0)
    rig.ring()
    rig.advance(2.0)
    rig.processes[0].watching = True
    rig.advance(60.0)
    verdict = rig.federation.given_up(token)
    assert (verdict.verdict, verdict.reasons) == ("Refused", ("KubeletRejected",))
    assert rig.live(token) == []


def test_verdicts_are_sent_again_until_a_leader_answers() -> None:
    rig = Rig().ready()
    rig.federation.takes_verdicts = False
    token = rig.federation.place(pods=1, gpus=9)
    rig.ring()
    rig.advance(20.0)
    assert rig.federation.verdict_counts[(token, "Refused")] == 4
    assert rig.agent.ledger.has(token)
    rig.federation.takes_verdicts = True
    rig.advance(20.0)
    assert not rig.agent.ledger.has(token)


def test_a_stop_is_obeyed_and_answered_with_its_reason() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=2, grace_s=30)
    rig.run(token)
    rig.federation.change(token, intent="stop", stop_reason="Drained")
    rig.ring()
    rig.advance(10.0)
    verdict = rig.federation.given_up(token)
    assert (verdict.verdict, verdict.reasons) == ("Released", ("Drained",))
    assert rig.live(token) == []


def test_a_stop_before_anything_began_is_given_up_at_once() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=2)
    rig.federation.change(token, intent="stop", stop_reason="Cancelled")
    rig.ring()
    rig.advance(3.0)
    assert rig.federation.given_up(token).reasons == ("Cancelled",)
    assert rig.intents() == []


def test_a_stop_named_by_an_answer_from_before_the_floor_is_obeyed_by_the_first_answer_that_counts() -> None:
    """No later answer names the token again, so it must not be forgotten (world seed 64)."""
    rig = Rig().ready()
    federation = rig.federation
    federation.lease = msgspec.structs.replace(federation.lease, floor=federation.position + 10_000)
    rig.advance(12.0)
    token = federation.place(pods=1)
    federation.change(token, intent="stop", stop_reason="Cancelled")
    rig.ring()
    rig.advance(3.0)
    assert federation.heard(token) == []
    federation.position += 20_000
    rig.ring()
    rig.advance(12.0)
    assert federation.given_up(token).reasons == ("Cancelled",)


def test_a_running_group_gets_its_own_grace_and_one_that_never_ran_a_short_one() -> None:
    rig = Rig().ready()
    ran = rig.federation.place(pods=1, grace_s=300)
    rig.run(ran)
    never = rig.federation.place(pods=1, grace_s=300)
    rig.ring()
    rig.advance(0.5)
    for token in (ran, never):
        rig.federation.change(token, intent="stop")
    rig.ring()
    rig.advance(1.0)
    graces = {
        call.path.rsplit("/", 1)[-1].rsplit("-", 3)[0]: call.body["gracePeriodSeconds"]
        for call in rig.sent("DELETE")
        if call.body and "/pods/" in call.path
    }
    assert sorted(graces.values()) == [20, 300]


def test_a_give_up_verdict_waits_for_the_last_container() -> None:
    rig = Rig(node("n-1"), node("n-2")).ready()
    token = rig.federation.place(pods=2, gpus=8)
    rig.run(token)
    rig.tell_kubelets(kt.NodeCut("n-2"))
    rig.federation.change(token, intent="stop", stop_reason="Cancelled")
    rig.ring()
    rig.advance(600.0)
    assert rig.federation.heard(token) == ["Bound", "Running"]
    assert len(rig.live(token)) == 1
    rig.tell_kubelets(kt.NodeHealed("n-2"))
    rig.advance(60.0)
    assert rig.federation.given_up(token).verdict == "Released"
    assert rig.live(token) == []


def test_pods_of_a_node_declared_out_of_service_count_as_ended() -> None:
    rig = Rig(node("n-1"), node("n-2")).ready()
    token = rig.federation.place(pods=2, gpus=8)
    rig.run(token)
    rig.tell_kubelets(kt.NodeCrashed("n-2"))
    rig.advance(60.0)

    def out_of_service(obj: dict[str, object]) -> dict[str, object]:
        taint = {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}
        return {**obj, "spec": {"taints": [taint]}}

    rig.set_node("n-2", out_of_service)
    rig.advance(60.0)
    assert rig.federation.given_up(token).reasons == ("MemberLost",)
    assert rig.pods(token) == []


def test_a_deleted_node_object_ends_the_group_as_member_lost() -> None:
    rig = Rig(node("n-1"), node("n-2")).ready()
    token = rig.federation.place(pods=2, gpus=8)
    rig.run(token)
    rig.tell_kubelets(kt.NodeCrashed("n-2"))
    rig.request("DELETE", "/api/v1/nodes/n-2")
    rig.advance(60.0)
    assert rig.federation.given_up(token).reasons == ("MemberLost",)
    assert rig.pods(token) == []


def test_a_preempting_group_starts_when_its_victim_has_ended_here() -> None:
    rig = Rig(node("n-1")).ready()
    victim = rig.federation.place(pods=1, gpus=8)
    rig.run(victim)
    heir = rig.federation.place(pods=1, gpus=8, after=(victim,))
    rig.federation.change(victim, intent="stop")
    rig.ring()
    rig.advance(1.0)
    assert rig.pods(heir) == []
    rig.advance(20.0)
    assert rig.live() == rig.live(heir)
    assert rig.federation.heard(heir) == ["Bound", "Running"]


def test_a_preempting_group_is_refused_when_its_victim_does_not_end_in_time() -> None:
    rig = Rig(node("n-1"), node("n-2")).ready()
    victim = rig.federation.place(pods=2, gpus=8, grace_s=30)
    rig.run(victim)
    rig.tell_kubelets(kt.NodeCut("n-2"))
    heir = rig.federation.place(pods=1, gpus=8, after=(victim,))
    rig.federation.change(victim, intent="stop")
    rig.ring()
    rig.advance(89.0)
    assert rig.federation.heard(heir) == []
    rig.advance(5.0)
    assert rig.federation.given_up(heir).reasons == ("VictimStillRunning",)


def test_groups_are_assigned_in_journal_order() -> None:
    rig = Rig(node("n-1")).ready()
    first = rig.federation.place(pods=1, gpus=8)
    second = rig.federation.place(pods=1, gpus=8)
    rig.ring()
    rig.advance(5.0)
    assert rig.federation.heard(first) == ["Bound", "Running"]
    assert rig.federation.heard(second) == ["Refused"]


def test_a_spec_that_cannot_be_read_is_refused_and_stops_nobody_else() -> None:
    rig = Rig().ready()
    bad = rig.federation.place(pods=1)
    rig.federation.specs["l1.1"] = b"not zlib"
    good = rig.federation.place(pods=1)
    rig.ring()
    rig.advance(5.0)
    assert rig.federation.given_up(bad).reasons == ("TemplateRefused",)
    assert rig.federation.heard(good) == ["Bound", "Running"]


def test_a_missing_spec_holds_later_groups_back_only_for_a_while() -> None:
    rig = Rig().ready()
    missing = rig.federation.place(pods=1)
    spec = rig.federation.specs.pop("l1.1")
    good = rig.federation.place(pods=1)
    rig.ring()
    rig.advance(2.0)
    assert rig.federation.heard(good) == []
    rig.advance(6.0)
    assert rig.federation.heard(good) == ["Bound", "Running"]
    rig.federation.specs["l1.1"] = spec
    rig.advance(8.0)
    assert rig.federation.heard(missing) == ["Bound", "Running"]


def test_the_finalizer_of_a_pod_is_taken_off_once() -> None:
    """The answer has the version that is known, as the pod is gone with it: it was taken off again, from nothing."""
    rig = Rig().ready()
    token = rig.federation.place(pods=4, run_s=5)
    rig.ring()
    rig.advance(40.0)
    assert rig.federation.given_up(token).succeeded
    freed = [call.path for call in rig.sent("PATCH") if "/pods/" in call.path]
    assert len(freed) == len(set(freed)) == 4
