"""Of several agent processes under one name only one acts (DESIGN §9)."""

from cluster_agents.core.events import CallKube
from tests.unit.cluster_agents.rig import FAST, Rig


def test_a_second_process_waits_while_the_first_renews() -> None:
    rig = Rig().ready()
    second = rig.start()
    rig.advance(60.0)
    assert rig.processes[0].core.active
    assert not second.core.active


def test_a_standby_takes_over_after_the_holder_was_silent_for_longer_than_its_lease() -> None:
    rig = Rig().ready()
    second = rig.start()
    rig.advance(5.0)
    rig.processes.pop(0)
    gone_s = rig.now_s
    rig.until(lambda: second.core.active)
    assert FAST.local_lease_s * 0.75 < rig.now_s - gone_s < FAST.local_lease_s * 1.04 + 6.0


def test_stamps_of_the_next_holder_are_higher() -> None:
    rig = Rig().ready()
    before = rig.reports[-1].stamp
    rig.restart()
    rig.until(lambda: rig.agent.active)
    rig.advance(3.0)
    assert rig.reports[-1].stamp > before
    assert rig.reports[-1].stamp.boot == before.boot + 1


def test_a_paused_holder_stands_by_when_it_wakes_and_writes_nothing() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=2)
    rig.run(token)
    paused = rig.processes.pop(0)
    second = rig.start()
    rig.until(lambda: second.core.active)
    rig.advance(5.0)
    rig.processes.insert(0, paused)
    calls_before = len(rig.calls)
    rig.advance(30.0)
    assert not paused.core.active
    assert second.core.active
    assert len(rig.live(token)) == 2
    assert all(call.method == "GET" or "/leases/" in call.path for call in rig.calls[calls_before:])


def test_a_former_holder_acts_again_when_its_successor_dies_and_knows_all_it_left_behind() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=2)
    rig.run(token)
    paused = rig.processes.pop(0)
    second = rig.start()
    rig.until(lambda: second.core.active)
    rig.processes.insert(0, paused)
    rig.advance(10.0)
    rig.processes.remove(second)
    rig.until(lambda: paused.core.active)
    rig.federation.change(token, intent="stop", stop_reason="Cancelled")
    rig.advance(30.0)
    assert rig.federation.given_up(token).reasons == ("Cancelled",)
    assert rig.live(token) == []


def test_an_api_server_that_is_away_for_a_while_costs_nobody_his_lease() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=2)
    rig.run(token)
    boot = rig.reports[-1].stamp.boot
    rig.api_up = False
    rig.advance(15.0)
    rig.api_up = True
    rig.advance(30.0)
    assert len(rig.live(token)) == 2
    assert rig.agent.active
    assert rig.reports[-1].stamp.boot == boot


def test_a_missing_namespace_is_created() -> None:
    rig = Rig()
    rig.advance(2.0)
    assert "muster-system" in rig.objects("namespaces")
    assert rig.agent.active


def test_nothing_happens_before_every_kind_was_listed() -> None:
    rig = Rig(start=False)
    process = rig.start(listed=False)
    rig.advance(30.0)
    assert not process.core.active
    assert all("/leases" in c.path or "/namespaces" in c.path for c in rig.calls)
    rig.relist(process)
    rig.advance(1.0)
    assert process.core.active


def test_a_lease_deleted_by_somebody_is_waited_out_before_another_process_acts() -> None:
    rig = Rig().ready()
    rig.advance(5.0)
    holder = rig.processes.pop(0)
    rig.request("DELETE", "/apis/coordination.k8s.io/v1/namespaces/muster-system/leases/muster-agent")
    deleted_s = rig.now_s
    second = rig.start()
    rig.until(lambda: second.core.active)
    assert rig.now_s - deleted_s > FAST.local_lease_s
    assert holder.core.active
    before = rig.reports[-1].stamp
    rig.advance(2.0)
    assert rig.reports[-1].stamp > before


def test_a_holder_whose_lease_was_deleted_while_its_api_server_was_away_acts_again() -> None:
    """It stood by, with a question after its Lease under way whose answer it had forgotten to wait for: for ever."""
    rig = Rig().ready()
    token = rig.federation.place(pods=2)
    rig.run(token)
    rig.api_up = False
    rig.advance(FAST.local_lease_s + 1.0)
    assert rig.agent.active
    rig.request("DELETE", "/apis/coordination.k8s.io/v1/namespaces/muster-system/leases/muster-agent")
    rig.api_up = True
    rig.advance(1.0)
    assert not rig.agent.active
    rig.until(lambda: rig.agent.active)


def test_a_renewal_that_a_proxy_says_it_took_holds_nothing() -> None:
    """Its writes went nowhere, and when the other process took over, both could start pods."""
    rig = Rig().ready()
    first = rig.processes[0]
    second = rig.start()
    rig.advance(5.0)

    def page(call: CallKube) -> int | None:
        ours = call.body is not None and call.body.get("spec", {}).get("holderIdentity") == "boot-1"
        return 200 if ours and "/leases" in call.path else None

    rig.override = page
    rig.until(lambda: second.core.active)
    assert not first.core._local.sure(rig.now_s)
    rig.override = lambda _: None
    rig.until(lambda: not first.core.active)
    assert second.core.active
