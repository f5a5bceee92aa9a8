"""Pods that admission changed: a limit range, a runtime class or a webhook may make them ask for more."""

from typing import Any

from tests.unit.cluster_agents.rig import Rig


def with_cpus(count: int) -> Any:
    """An admission that makes every pod ask for so many CPUs."""

    def admit(pod: dict[str, Any]) -> dict[str, Any]:
        main = pod["spec"]["containers"][0]
        resources = {kind: {**main["resources"]["limits"], "cpu": str(count)} for kind in ("limits", "requests")}
        return {**pod, "spec": {**pod["spec"], "containers": [{**main, "resources": resources}]}}

    return admit


def cpu_free(rig: Rig) -> dict[str, int]:
    rows = rig.agent._books.inventory.take_all()
    return {row.name: row.cpu_milli_free // 1_000 for row in rows}


def test_a_gang_that_admission_makes_too_large_for_its_nodes_is_refused_before_any_of_it_is_bound() -> None:
    rig = Rig().ready()
    rig.admit = with_cpus(40)
    token = rig.federation.place(pods=8)
    rig.ring()
    rig.advance(20.0)
    verdict = rig.federation.given_up(token)
    assert (verdict.verdict, verdict.reasons) == ("Refused", ("InsufficientCpu",))
    said = "lacks 192000 milli CPUs: admission made a pod ask for 39000 more than its manifest says"
    assert said in verdict.detail
    assert rig.sent("POST", "/binding") == []
    assert rig.pods() == []
    assert cpu_free(rig) == {"n-1": 128, "n-2": 128}


def test_what_admission_added_to_a_gang_that_fits_is_held_until_it_ends() -> None:
    rig = Rig().ready()
    rig.admit = with_cpus(40)
    token = rig.federation.place(pods=3)
    rig.run(token)
    assert sorted(cpu_free(rig).values()) == [8, 128]
    rig.restart()
    rig.until(lambda: bool(rig.agent.gangs))
    assert sorted(cpu_free(rig).values()) == [8, 128]
    rig.federation.change(token, intent="stop", stop_reason="Cancelled")
    rig.ring()
    rig.advance(40.0)
    assert cpu_free(rig) == {"n-1": 128, "n-2": 128}


def test_pods_that_admission_makes_too_large_to_join_a_gang_leave_it_as_it_was() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=4, elastic=True, min_count=1)
    rig.federation.change(token, counts=(1,))
    rig.run(token)
    rig.admit = with_cpus(100)
    at = rig.federation.resize(token, 4)
    rig.ring()
    rig.advance(20.0)
    assert rig.federation.sized(token) == [((1,), at)]
    assert len(rig.pods(token)) == 1
    assert sorted(cpu_free(rig).values()) == [127, 128]
