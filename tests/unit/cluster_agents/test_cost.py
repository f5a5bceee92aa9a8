"""What a group costs the API server of its cluster: requests counted, as benchmarks on a busy machine cannot."""

from tests.unit.cluster_agents.rig import Rig

OWN = ("leases", "namespaces")  # what an agent asks for itself, groups or none


def test_a_group_of_one_pod_takes_three_requests_to_be_bound() -> None:
    rig = Rig().ready()
    rig.calls.clear()
    rig.federation.place(pods=1)
    rig.ring()
    rig.advance(3.0)
    assert _calls(rig) == ["POST configmaps", "POST pods", "POST binding"]


def test_a_group_of_one_pod_takes_five_more_to_end_and_leave_nothing() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=1, run_s=10)
    rig.run(token)
    rig.calls.clear()
    rig.advance(30.0)
    assert rig.agent.gangs == {}
    ledger, intent = "PUT muster-ledger", "DELETE configmap"
    assert _calls(rig) == [ledger, "DELETE pod", "PATCH pod", ledger, intent]


def test_groups_that_end_together_share_the_writes_of_the_ledger() -> None:
    rig = Rig().ready()
    tokens = [rig.federation.place(pods=1, run_s=10) for _ in range(8)]
    for token in tokens:
        rig.run(token)
    rig.calls.clear()
    rig.advance(40.0)
    assert rig.agent.gangs == {}
    assert _calls(rig).count("PUT muster-ledger") <= 8
    assert len(_calls(rig)) <= 8 * 3 + 8


def test_a_gang_takes_two_requests_per_pod_and_two_of_its_own_to_be_bound() -> None:
    rig = Rig().ready()
    rig.calls.clear()
    rig.federation.place(pods=8)
    rig.ring()
    rig.advance(3.0)
    assert len(_calls(rig)) == 2 * 8 + 2


def test_a_quiet_cluster_costs_its_api_server_the_agents_lease_only() -> None:
    rig = Rig().ready()
    rig.run(rig.federation.place(pods=1))
    rig.advance(5.0)
    rig.calls.clear()
    rig.advance(60.0)
    assert _calls(rig) == []


def test_a_small_spec_that_comes_along_is_not_asked_for() -> None:
    rig = Rig().ready()
    rig.federation.sends_specs = True
    token = rig.federation.place(pods=2)
    rig.ring()
    rig.advance(5.0)
    assert rig.bound(token) == 2
    assert rig.federation.asked["SpecAsk"] == 0


def test_a_spec_that_does_not_come_along_is_asked_for_once() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=2)
    rig.ring()
    rig.advance(5.0)
    assert rig.bound(token) == 2
    assert rig.federation.asked["SpecAsk"] == 1


def test_a_group_that_begins_and_ends_costs_its_servers_one_doorbells_look_three_verdicts_and_two_later_looks() -> None:
    rig = Rig().ready()
    rig.federation.sends_specs = True
    rig.advance(0.9)
    rig.federation.asked.clear()
    rig.federation.place(pods=1, run_s=2)
    rig.ring()
    rig.advance(6.0)
    assert rig.agent.gangs == {}
    assert rig.federation.asked == {"DesiredAsk": 3, "Verdict": 3, "Renewal": rig.federation.asked["Renewal"]}


def test_groups_that_begin_and_end_together_share_the_looks() -> None:
    rig = Rig().ready()
    rig.federation.sends_specs = True
    rig.federation.asked.clear()
    for _ in range(8):
        rig.federation.place(pods=1, run_s=2)
        rig.ring()
        rig.advance(0.1)
    rig.advance(8.0)
    assert rig.agent.gangs == {}
    assert rig.federation.asked["Verdict"] == 8 * 3
    assert rig.federation.asked["DesiredAsk"] <= 8 + 4


def test_what_the_api_server_says_in_a_handful_leads_to_the_same_requests() -> None:
    made = []
    for together in (False, True):
        rig = Rig().ready()
        rig.together = together
        rig.federation.place(pods=8, run_s=5)
        rig.ring()
        rig.advance(20.0)
        assert rig.agent.gangs == {}
        made.append(sorted(_calls(rig)))
    assert made[0] == made[1]


def _calls(rig: Rig) -> list[str]:
    """Method and kind of each call for a group, in order; the kind in the singular with an object's own path."""
    shown = []
    for call in rig.calls:
        kind, last = call.path.split("/")[-2:]
        if kind in OWN or last in OWN:
            continue
        named = kind in {"pods", "configmaps"} and last != "muster-ledger"
        shown.append(f"{call.method} {kind.removesuffix('s') if named else last}")
    return shown
