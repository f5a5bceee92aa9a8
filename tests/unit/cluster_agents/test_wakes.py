"""What an agent costs: how often it wakes, in quiet and in trouble. Counted in wakes and calls, never in seconds."""

from collections.abc import Callable

import pytest

from cluster_agents.core.events import Tick
from tests.unit.cluster_agents.rig import Rig


def wakes(rig: Rig, seconds: float) -> int:
    """How often the agent asks to be woken in this time."""
    count = 0
    until_s = rig.now_s + seconds
    while (at_s := rig.agent.wake_at_s(rig.now_s)) < until_s:
        rig.advance(max(0.0, at_s - rig.now_s) + 1e-6)
        count += 1
    return count


def quiet(rig: Rig) -> None:
    """Nothing happens."""


def servers_away(rig: Rig) -> None:
    rig.federation.up = False


def api_away(rig: Rig) -> None:
    rig.api_up = False


def api_swallows(rig: Rig) -> None:
    rig.api_up, rig.swallow = False, True


def verdicts_unanswered(rig: Rig) -> None:
    rig.federation.takes_verdicts = False
    rig.federation.place(pods=17)
    rig.ring()


def ledger_refused(rig: Rig) -> None:
    rig.override = lambda call: 403 if call.path.endswith("/muster-ledger") else None
    rig.federation.place(pods=17)
    rig.ring()


@pytest.mark.parametrize("trouble", [quiet, servers_away, api_away, api_swallows, verdicts_unanswered, ledger_refused])
def test_an_agent_never_spins(trouble: Callable[[Rig], None]) -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=2)
    rig.run(token)
    trouble(rig)
    assert wakes(rig, 300.0) < 900


@pytest.mark.parametrize("swallow", [False, True], ids=["calls fail", "calls are swallowed"])
def test_an_agent_that_starts_without_its_api_server_waits_for_it(swallow: bool) -> None:
    rig = Rig(start=False)
    rig.api_up, rig.swallow = False, swallow
    rig.start()
    assert wakes(rig, 120.0) < 200
    rig.api_up = True
    rig.advance(10.0)
    assert rig.agent.active


def test_a_standby_only_looks_at_the_lease() -> None:
    rig = Rig().ready()
    rig.start()
    rig.advance(1.0)
    assert wakes(rig, 300.0) < 200


def test_a_tick_before_its_time_does_nothing() -> None:
    rig = Rig().ready()
    rig.advance(3.0)
    before = rig.agent.wake_at_s(rig.now_s)
    assert before > rig.now_s
    assert rig.agent.handle(Tick(), rig.now_s) == []
    assert rig.agent.wake_at_s(rig.now_s) == before


def test_a_quiet_minute_costs_the_api_server_little_more_than_the_lease() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=2)
    rig.run(token)
    rig.advance(5.0)
    rig.calls.clear()
    rig.advance(60.0)
    assert {call.path.rsplit("/", 1)[-1] for call in rig.calls} == {"muster-agent"}
    assert len(rig.calls) <= 25
