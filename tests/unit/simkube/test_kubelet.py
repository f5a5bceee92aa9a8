"""The simulated kubelets: admission, running, ending, stopping, and what survives cuts, crashes and restarts."""

import pytest

from cluster_agents.simkube.apiserver import ApiRequest
from cluster_agents.simkube.kubelet import NodeShape
from cluster_agents.simkube.kubelet import types as kt
from cluster_agents.simkube.runlog import device_conflicts, runs
from tests.unit.simkube.mini import GUARDED, JOBS, PODS, MiniCluster, pod

NODE = NodeShape("n-1", cpu_milli=8_000, memory_mib=16_384, gpus=4, pods_max=5)
OTHER = NodeShape("n-2", cpu_milli=8_000, memory_mib=16_384, gpus=4, pods_max=5)


def cluster(*nodes: NodeShape, guarded: bool = False) -> MiniCluster:
    return MiniCluster(nodes or (NODE,), GUARDED) if guarded else MiniCluster(nodes or (NODE,))


def test_kubelets_register_their_nodes_ready_and_with_their_devices() -> None:
    c = cluster()
    node = c.request("GET", "/api/v1/nodes/n-1").body
    assert node["status"]["allocatable"] == {
        "cpu": "8000m",
        "memory": "16384Mi",
        "pods": "5",
        "nvidia.com/gpu": "4",
    }
    assert [(x["type"], x["status"]) for x in node["status"]["conditions"]] == [("Ready", "True")]


def test_a_bound_pod_starts_after_its_delay_and_is_reported_running() -> None:
    c = cluster()
    c.request("POST", PODS, pod("a", node="n-1"))
    c.advance(0.9)
    assert (c.phase("a"), c.live()) == ("Pending", [])
    c.advance(0.1)
    assert (c.phase("a"), c.live()) == ("Running", ["a"])


def test_a_pod_with_run_seconds_succeeds_when_they_are_over() -> None:
    c = cluster()
    c.request("POST", PODS, pod("a", node="n-1", annotations={"simkube/run-seconds": "60"}))
    c.advance(60.9)
    assert c.phase("a") == "Running"
    c.advance(0.1)
    assert (c.phase("a"), c.live()) == ("Succeeded", [])


def test_a_pod_with_fail_after_seconds_fails_with_exit_code_1() -> None:
    c = cluster()
    c.request("POST", PODS, pod("a", node="n-1", annotations={"simkube/fail-after-seconds": "3"}))
    c.advance(10)
    stored = c.pod("a")
    assert stored is not None
    assert stored["status"]["phase"] == "Failed"
    assert stored["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 1


def test_a_pod_that_may_restart_runs_again_after_its_back_off() -> None:
    c = cluster()
    failing = pod("a", node="n-1", policy="OnFailure", annotations={"simkube/fail-after-seconds": "3"})
    c.request("POST", PODS, failing)
    c.advance(4)  # started at 1, failed at 4
    assert (c.phase("a"), c.live()) == ("Running", [])
    c.advance(10)
    assert c.live() == ["a"]
    assert [(run.started.at_s, run.ended_s) for run in runs(c.kubelets.run_log)] == [(1.0, 4.0), (14.0, None)]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param({"gpus": 5}, "UnexpectedAdmissionError", id="more GPUs than are free"),
        pytest.param({"cpu": "9"}, "OutOfcpu", id="more CPU than is free"),
    ],
)
def test_a_kubelet_refuses_what_does_not_fit_for_good(fields: dict[str, object], reason: str) -> None:
    c = cluster()
    c.request("POST", PODS, pod("a", node="n-1", **fields))  # type: ignore[arg-type]  # table of keyword arguments
    c.advance(5)
    stored = c.pod("a")
    assert stored is not None
    assert (stored["status"]["phase"], stored["status"]["reason"]) == ("Failed", reason)
    assert "containerStatuses" not in stored["status"]
    assert c.kubelets.run_log == []


def test_mig_instances_are_advertised_given_out_and_taken_back() -> None:
    c = cluster(NodeShape("n-1", gpus=0, mig={"nvidia.com/mig-1g.10gb": 2, "nvidia.com/mig-3g.40gb": 1}))
    node = c.request("GET", "/api/v1/nodes/n-1").body
    told = {name: count for name, count in node["status"]["allocatable"].items() if name.startswith("nvidia.com")}
    assert told == {"nvidia.com/mig-1g.10gb": "2", "nvidia.com/mig-3g.40gb": "1"}
    ends = {"simkube/run-seconds": "10"}
    for name, profile in (("a", "1g.10gb"), ("b", "1g.10gb"), ("c", "3g.40gb")):
        c.request("POST", PODS, pod(name, node="n-1", mig={profile: 1}, annotations=ends))
    c.request("POST", PODS, pod("late", node="n-1", mig={"1g.10gb": 1}))
    c.request("POST", PODS, pod("other", node="n-1", mig={"2g.20gb": 1}))
    c.advance(5)
    assert (c.live(), c.phase("late"), c.phase("other")) == (["a", "b", "c"], "Failed", "Failed")
    stored = c.pod("late")
    assert stored is not None
    assert stored["status"]["message"] == (
        "Allocate failed due to requested number of devices unavailable for nvidia.com/mig-1g.10gb. "
        "Requested: 1, Available: 0, which is unexpected"
    )
    c.advance(10)
    c.request("POST", PODS, pod("next", node="n-1", mig={"1g.10gb": 2, "3g.40gb": 1}))
    c.advance(5)
    assert c.live() == ["next"]
    held = {run.started.pod: run.started.instances for run in runs(c.kubelets.run_log)}
    small, large = "nvidia.com/mig-1g.10gb", "nvidia.com/mig-3g.40gb"
    assert held == {
        "a": (f"{small}/0",),
        "b": (f"{small}/1",),
        "c": (f"{large}/0",),
        "next": (f"{small}/0", f"{small}/1", f"{large}/0"),
    }
    assert device_conflicts(c.kubelets.run_log) == []


def test_a_kubelet_refuses_the_pod_above_its_limit() -> None:
    c = cluster()
    for i in range(6):
        c.request("POST", PODS, pod(f"p-{i}", node="n-1", cpu="100m"))
    c.advance(5)
    assert [c.phase(f"p-{i}") for i in range(6)] == ["Running"] * 5 + ["Failed"]
    stored = c.pod("p-5")
    assert stored is not None
    assert stored["status"]["reason"] == "OutOfpods"


def test_gpus_are_given_once_and_returned_when_the_container_has_ended() -> None:
    c = cluster()
    c.request("POST", PODS, pod("a", node="n-1", gpus=3, annotations={"simkube/run-seconds": "10"}))
    c.request("POST", PODS, pod("b", node="n-1", gpus=1))
    c.advance(20)
    c.request("POST", PODS, pod("c", node="n-1", gpus=3))
    c.advance(5)
    assert {run.started.pod: run.started.gpus for run in runs(c.kubelets.run_log)} == {
        "a": (0, 1, 2),
        "b": (3,),
        "c": (0, 1, 2),
    }
    assert device_conflicts(c.kubelets.run_log) == []


def test_an_ill_gpu_shrinks_allocatable_and_is_not_given_out() -> None:
    c = cluster()
    c.tell(kt.GpusLost("n-1", frozenset({0, 1})))
    assert c.request("GET", "/api/v1/nodes/n-1").body["status"]["allocatable"]["nvidia.com/gpu"] == "2"
    c.request("POST", PODS, pod("a", node="n-1", gpus=2))
    c.request("POST", PODS, pod("b", node="n-1", gpus=1))
    c.advance(5)
    assert (c.phase("a"), c.phase("b")) == ("Running", "Failed")
    assert c.kubelets.run_log[0].gpus == (2, 3)


def test_a_deleted_pod_is_gone_only_after_its_containers_have_ended() -> None:
    c = cluster()
    c.request("POST", PODS, pod("a", node="n-1"))
    c.advance(5)
    c.request("DELETE", f"{PODS}/a")
    c.advance(1.9)
    assert (c.phase("a"), c.live()) == ("Running", ["a"])
    c.advance(0.1)
    assert (c.phase("a"), c.live()) == ("absent", [])


def test_a_container_stops_within_its_grace_even_if_it_would_take_longer() -> None:
    c = cluster()
    c.request("POST", PODS, pod("a", node="n-1", grace_s=1))
    c.advance(5)
    c.request("DELETE", f"{PODS}/a")
    c.advance(1)
    assert c.phase("a") == "absent"


def test_a_finalizer_keeps_the_ended_pod_and_its_outcome_readable() -> None:
    c = cluster()
    c.request("POST", PODS, pod("a", node="n-1", finalizers=["muster.io/outcome"]))
    c.advance(5)
    c.request("DELETE", f"{PODS}/a")
    c.advance(5)
    stored = c.pod("a")
    assert stored is not None
    assert stored["status"]["phase"] == "Failed"
    assert stored["metadata"]["deletionGracePeriodSeconds"] == 0
    assert "terminated" in stored["status"]["containerStatuses"][0]["state"]
    patch = {"metadata": {"finalizers": None}}
    c.request("PATCH", f"{PODS}/a", patch, content_type="application/merge-patch+json")
    assert c.phase("a") == "absent"


def test_a_force_deleted_pod_is_gone_at_once_but_its_container_runs_until_the_kubelet_hears() -> None:
    c = cluster()
    c.request("POST", PODS, pod("a", node="n-1"))
    c.advance(5)
    c.tell(kt.NodeCut("n-1"))
    c.request("DELETE", f"{PODS}/a", query={"gracePeriodSeconds": "0"})
    c.advance(600)
    assert (c.phase("a"), c.live()) == ("absent", ["a"])
    c.tell(kt.NodeHealed("n-1"))
    c.advance(2)
    assert c.live() == []


def test_a_list_that_comes_late_brings_no_pod_back_that_the_watch_took_away() -> None:
    c = cluster()
    c.tell(kt.NodeCut("n-1"))
    c.request("POST", PODS, pod("a", node="n-1"))
    asked = c.kubelets.handle(kt.NodeHealed("n-1"), c.now_s)
    (listing,) = [one for one in asked if isinstance(one, kt.ApiCall) and one.request.path == "/api/v1/pods"]
    listed = c.api.handle(listing.request, c.now_s)
    shown = c.pod("a")
    assert shown is not None
    c.api.handle(ApiRequest("DELETE", f"{PODS}/a", {"gracePeriodSeconds": "0"}), c.now_s)
    c.tell(kt.PodGone(shown))
    c.tell(kt.ApiReply(listing.call_id, listed.status, listed.body))
    c.advance(5)
    assert not c.kubelets.run_log


def test_a_cut_node_keeps_its_containers_and_reports_after_it_healed() -> None:
    c = cluster()
    c.request("POST", PODS, pod("a", node="n-1", annotations={"simkube/run-seconds": "30"}))
    c.advance(5)
    c.tell(kt.NodeCut("n-1"))
    c.advance(60)
    assert (c.phase("a"), c.live()) == ("Running", [])
    c.tell(kt.NodeHealed("n-1"))
    assert c.phase("a") == "Succeeded"
    assert [(run.started.at_s, run.ended_s) for run in runs(c.kubelets.run_log)] == [(1.0, 31.0)]


def test_a_cut_node_becomes_unknown_and_tainted_and_recovers() -> None:
    c = cluster()
    c.tell(kt.NodeCut("n-1"))
    c.advance(60)
    node = c.request("GET", "/api/v1/nodes/n-1").body
    assert node["status"]["conditions"][0]["status"] == "Unknown"
    assert {t["effect"] for t in node["spec"]["taints"]} == {"NoSchedule", "NoExecute"}
    c.tell(kt.NodeHealed("n-1"))
    c.advance(1)
    node = c.request("GET", "/api/v1/nodes/n-1").body
    assert node["status"]["conditions"][0]["status"] == "True"
    assert "taints" not in node["spec"]


def test_pods_of_a_silent_node_are_marked_after_five_minutes_yet_stay() -> None:
    c = cluster()
    c.request("POST", PODS, pod("a", node="n-1"))
    c.advance(5)
    c.tell(kt.NodeCut("n-1"))
    c.advance(330)  # at most 50 s until the node is tainted, then tolerationSeconds 300
    stored = c.pod("a")
    assert stored is not None
    assert "deletionTimestamp" not in stored["metadata"]
    c.advance(30)
    stored = c.pod("a")
    assert stored is not None
    assert "deletionTimestamp" in stored["metadata"]
    assert c.live() == ["a"]


def test_pods_of_a_deleted_node_are_failed_and_removed_while_their_containers_run_on() -> None:
    c = cluster()
    c.request("POST", PODS, pod("a", node="n-1", finalizers=["muster.io/outcome"]))
    c.advance(5)
    c.tell(kt.NodeCut("n-1"))
    c.request("DELETE", "/api/v1/nodes/n-1")
    c.advance(41)
    stored = c.pod("a")
    assert stored is not None
    assert stored["status"]["phase"] == "Failed"
    assert stored["status"]["conditions"][-1]["reason"] == "DeletionByPodGC"
    assert c.live() == ["a"]


def test_containers_live_on_while_the_api_server_is_down() -> None:
    c = cluster()
    c.request("POST", PODS, pod("a", node="n-1"))
    c.request("POST", PODS, pod("b", node="n-1", annotations={"simkube/run-seconds": "30"}))
    c.advance(5)
    c.api_up = False
    c.advance(120)
    assert c.live() == ["a"]
    c.api_returns()
    c.advance(20)
    assert (c.phase("a"), c.phase("b")) == ("Running", "Succeeded")


def test_a_report_whose_reply_was_lost_is_sent_again_without_harm() -> None:
    c = cluster()
    c.api.faults.fail("patch", "pods/status", 504, applied=True)
    c.request("POST", PODS, pod("a", node="n-1"))
    c.advance(1)
    assert c.phase("a") == "Running"
    c.advance(30)
    patches = [r for r in c.api.audit.requests if r.method == "PATCH" and r.label == "pods/status"]
    assert [r.status for r in patches] == [504, 200]


def test_a_crashed_node_ends_everything_at_once_and_fails_its_pods_when_it_is_back() -> None:
    c = cluster()
    c.request("POST", PODS, pod("a", node="n-1"))
    c.request("POST", PODS, pod("b", node="n-1", policy="OnFailure"))
    c.advance(5)
    c.tell(kt.NodeCrashed("n-1"))
    assert c.live() == []
    assert [run.ended_s for run in runs(c.kubelets.run_log)] == [5.0, 5.0]
    c.advance(60)
    c.tell(kt.NodeBooted("n-1"))
    c.advance(5)
    assert (c.phase("a"), c.phase("b")) == ("Failed", "Running")
    assert c.live() == ["b"]


def test_a_job_runs_to_completion_on_real_kubelets() -> None:
    c = cluster(NODE, OTHER)
    template = pod("x", annotations={"simkube/run-seconds": "10"})
    job = {
        "metadata": {"name": "train"},
        "spec": {
            "completionMode": "Indexed",
            "completions": 2,
            "parallelism": 2,
            "template": {"metadata": {"annotations": {"simkube/run-seconds": "10"}}, "spec": template["spec"]},
        },
    }
    c.request("POST", JOBS, job)
    for made in c.request("GET", PODS).body["items"]:
        binding = {"target": {"name": "n-1"}}
        c.request("POST", f"{PODS}/{made['metadata']['name']}/binding", binding)
    c.advance(5)
    assert c.request("GET", f"{JOBS}/train").body["status"]["active"] == 2
    c.advance(10)
    status = c.request("GET", f"{JOBS}/train").body["status"]
    assert (status["succeeded"], status["completedIndexes"]) == (2, "0-1")
    assert status["conditions"][-1]["type"] == "Complete"


# --- the guard in its place ------------------------------------------------------------------------------------------


def test_containers_of_ours_wait_for_the_guards_first_answer_and_others_do_not() -> None:
    c = cluster(guarded=True)
    c.request("POST", PODS, pod("ours", node="n-1", group="g-1", token="L.5"))
    c.request("POST", PODS, pod("theirs", node="n-1"))
    c.advance(4)
    assert c.live() == ["theirs"]
    c.lease_until_s = 60.0
    c.advance(1)  # the guard asks again at 5
    assert c.live() == ["ours", "theirs"]


def test_past_its_deadline_the_guard_stops_ours_but_not_the_held_nor_the_others() -> None:
    c = cluster(guarded=True)
    c.lease_until_s, c.hold = 30.0, ("L.6",)
    c.request("POST", PODS, pod("moves", node="n-1", group="g-1", token="L.5"))
    c.request("POST", PODS, pod("holds", node="n-1", group="g-2", token="L.6"))
    c.request("POST", PODS, pod("theirs", node="n-1"))
    c.advance(29.9)
    assert c.live() == ["holds", "moves", "theirs"]
    c.advance(2.1)
    assert c.live() == ["holds", "theirs"]
    ended = [entry for entry in c.kubelets.run_log if entry.event == "ended"]
    assert [(e.pod, e.at_s, e.why) for e in ended] == [("moves", 32.0, "GuardFenced")]


def test_a_node_cut_from_all_fences_itself_and_starts_nothing_of_ours() -> None:
    c = cluster(guarded=True)
    c.lease_until_s = 1_000.0
    c.request("POST", PODS, pod("a", node="n-1", group="g-1", token="L.5"))
    c.advance(10)
    c.lease_until_s = 40.0
    c.advance(5)
    c.tell(kt.NodeCut("n-1"))
    c.advance(984.9)
    assert c.live() == ["a"]  # the furthest remainder it was told: a lease end never moves back
    c.advance(10)
    assert c.live() == []


def test_a_restarted_guard_without_an_answer_fences_after_one_renewal_but_keeps_what_it_knew_as_held() -> None:
    c = cluster(guarded=True)
    c.lease_until_s, c.hold = 1_000.0, ("L.6",)
    c.request("POST", PODS, pod("moves", node="n-1", group="g-1", token="L.5"))
    c.request("POST", PODS, pod("holds", node="n-1", group="g-2", token="L.6"))
    c.advance(10)
    c.lease_until_s = None  # the agent is down
    c.tell(kt.GuardRestarted("n-1"))
    c.advance(4.9)
    assert c.live() == ["holds", "moves"]
    c.advance(2.1)
    assert c.live() == ["holds"]


def test_equal_seeds_give_equal_run_logs() -> None:
    def log(seed: int) -> list[object]:
        timing = kt.Timing(guard_renewal_s=None)
        c = MiniCluster([NODE], timing, seed=seed)
        for i in range(5):
            c.request("POST", PODS, pod(f"p-{i}", node="n-1", annotations={"simkube/run-seconds": "5"}))
        c.advance(60)
        return list(c.kubelets.run_log)

    assert log(1) == log(1)
    assert log(1) != log(2)
