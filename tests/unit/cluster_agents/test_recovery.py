"""An agent whose fleet was restored from a backup: what runs goes on, nothing starts, and all that is held is told."""

from __future__ import annotations

from cluster_agents.core.events import ServerAnswered
from federation.protocol.lease import LeaseState
from federation.protocol.messages import AgentAsk, LeaseBody, Renewal, ServerAnswer, SpecAnswer
from tests.unit.cluster_agents.rig import CLUSTER, FAST, Federation, Rig, node


def recover(rig: Rig) -> None:
    """From now on servers of the restored fleet answer: they renew, and know of nothing."""
    federation = rig.federation
    federation.lease = LeaseBody(cluster=CLUSTER, state=LeaseState.RECOVERING, epoch=1, ttl_s=3_600.0, lineage="l-2")

    def answer(ask: AgentAsk) -> ServerAnswer | None:
        return Federation.answer(federation, ask) if isinstance(ask, Renewal) else None

    federation.answer = answer  # type: ignore[method-assign]


def recovered(rig: Rig) -> None:
    """Every cluster was heard: this one is admitted."""
    del rig.federation.answer  # type: ignore[method-assign]
    rig.federation.admit()


def test_what_runs_goes_on_for_as_long_as_it_takes_and_is_told_with_its_group() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=2)
    rig.run(token)
    recover(rig)
    rig.advance(10 * FAST.ttl_s)
    assert len(rig.live(token)) == 2
    last = rig.reports[-1]
    assert (last.live, last.epoch, last.tokens) == (False, 1, (token,))
    assert (last.uids, last.recovers) == ((rig.federation.homes[token].uid,), "l-2")


def test_nothing_starts_before_the_recovery_is_over_and_all_is_as_ever_afterwards() -> None:
    rig = Rig().ready()
    running = rig.federation.place(pods=2)
    rig.run(running)
    recover(rig)
    rig.advance(FAST.renew_s + 1)
    token = rig.federation.place(pods=2)
    rig.ring()
    rig.advance(60.0)
    assert rig.pods(token) == []
    recovered(rig)
    rig.advance(FAST.renew_s + 20)
    assert len(rig.live(token)) == 2
    assert len(rig.live(running)) == 2
    assert (rig.reports[-1].live, rig.reports[-1].tokens, rig.reports[-1].uids) == (True, None, ())
    assert rig.reports[-1].recovers == ""


def test_an_agent_that_starts_while_the_fleet_recovers_tells_what_it_finds() -> None:
    rig = Rig(node("n-1")).ready()
    token = rig.federation.place(pods=1)
    rig.run(token)
    uid = rig.federation.homes[token].uid
    recover(rig)
    rig.restart()
    rig.advance(30.0)
    last = rig.reports[-1]
    assert (last.live, last.tokens, last.uids, last.lineage) == (False, (token,), (uid,), "")
    assert len(rig.live(token)) == 1


def test_a_group_that_nobody_wants_after_the_recovery_is_stopped() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=2)
    rig.run(token)
    recover(rig)
    rig.advance(FAST.renew_s + 1)
    rig.federation.end(token)
    recovered(rig)
    rig.advance(FAST.renew_s + 60)
    assert rig.live(token) == []


def test_an_answer_of_before_the_restore_that_comes_late_starts_nothing() -> None:
    rig = Rig().ready()
    recover(rig)
    rig.advance(FAST.renew_s + 1)
    token = rig.federation.place(pods=2)
    rig.tell(ServerAnswered(rig.federation.desired(ask_id=1, since=0)))
    group = rig.federation.homes[token]
    rig.tell(ServerAnswered(SpecAnswer(ask_id=2, uid=group.uid, spec=rig.federation.specs[group.uid])))
    rig.advance(20.0)
    assert rig.pods(token) == []
