"""An API server that goes away, answers slowly or has too much to do while gangs are built: whose fault that is not."""

from __future__ import annotations

import pytest

from cluster_agents.core.events import AgentEvent, CallKube, KubeAnswered
from tests.unit.cluster_agents.rig import Process, Rig

POINTS = {
    "intent": ("POST", "/configmaps", 1),
    "service": ("POST", "/services", 1),
    "first-pod": ("POST", "/pods", 1),
    "some-pods": ("POST", "/pods", 3),
    "first-binding": ("POST", "/binding", 1),
    "half-bound": ("POST", "/binding", 3),
    "last-binding": ("POST", "/binding", 4),
}
PODS = 4


def cut_at(rig: Rig, point: str, *, carried_out: bool = False) -> None:
    """The API server goes away at this call of a gang; `carried_out`: right after it did as it was asked."""
    method, ending, number = POINTS[point]
    seen = 0

    def cut(call: CallKube) -> bool:
        nonlocal seen
        seen += call.method == method and call.path.endswith(ending) and "muster-ledger" not in str(call.body)
        if seen != number:
            return False
        seen += 1
        rig.api_up = False
        return True

    if carried_out:
        rig.lose_reply = cut
    else:
        rig.override = lambda call: 0 if cut(call) else None


@pytest.mark.parametrize("carried_out", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("away_s", [3.0, 10.0, 20.0])
def test_a_gang_goes_on_where_it_was_when_its_api_server_was_away(point: str, away_s: float, carried_out: bool) -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=PODS)
    cut_at(rig, point, carried_out=carried_out)
    rig.ring()
    assert not rig.api_up
    rig.advance(away_s)
    rig.api_up = True
    rig.advance(20.0)
    assert rig.federation.heard(token) == ["Bound", "Running"]
    assert len(rig.pods()) == PODS


@pytest.mark.parametrize("point", POINTS)
def test_an_api_server_that_says_nothing_is_no_fault_of_a_gang_either(point: str) -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=PODS)
    cut_at(rig, point)
    rig.swallow = True
    rig.ring()
    rig.advance(12.0)
    rig.api_up = True
    rig.advance(25.0)
    assert rig.federation.heard(token) == ["Bound", "Running"]
    assert len(rig.pods()) == PODS


@pytest.mark.parametrize("status", [500, 503, 504])
@pytest.mark.parametrize("point", POINTS)
def test_an_api_server_whose_store_is_away_is_no_fault_of_a_gang(point: str, status: int) -> None:
    """It reads what it remembers, and writes nothing."""
    rig = Rig().ready()
    token = rig.federation.place(pods=PODS)
    method, ending, number = POINTS[point]
    since_s: list[float] = []

    def store_away(call: CallKube) -> int | None:
        if not since_s and len(rig.sent(method, ending)) == number:
            since_s.append(rig.now_s)
        return status if since_s and call.method != "GET" and rig.now_s < since_s[0] + 15.0 else None

    rig.calls.clear()
    rig.override = store_away
    rig.ring()
    rig.advance(40.0)
    assert since_s
    assert rig.federation.heard(token) == ["Bound", "Running"]


@pytest.mark.parametrize("point", ["first-pod", "half-bound"])
def test_pods_that_join_wait_for_an_api_server_that_is_away(point: str) -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=8, elastic=True, min_count=2)
    rig.federation.change(token, counts=(2,))
    rig.run(token)
    cut_at(rig, point)
    position = rig.federation.resize(token, 8)
    rig.ring()
    rig.advance(10.0)
    rig.api_up = True
    rig.advance(20.0)
    assert rig.federation.sized(token) == [((8,), position)]


@pytest.mark.parametrize("point", ["half-bound", "last-binding"])
@pytest.mark.parametrize("away_s", [31.0, 50.0])
def test_a_gang_that_was_half_bound_for_too_long_is_undone_whole_when_its_api_server_is_back(
    point: str, away_s: float
) -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=PODS)
    cut_at(rig, point)
    rig.ring()
    rig.advance(away_s)
    rig.api_up = True
    rig.advance(40.0)
    assert rig.federation.given_up(token).verdict in {"Refused", "Released"}
    assert rig.live() == []
    assert rig.pods() == []


class SlowRig(Rig):
    """Its API server takes its time for everything that the agent asks."""

    slow_s = 0.0

    def __init__(self) -> None:
        self.late: list[tuple[float, Process, AgentEvent]] = []
        self.timeouts: dict[int, float] = {}
        super().__init__()

    def _call(self, process: Process, call: CallKube) -> None:
        self.timeouts[call.call_id] = call.timeout_s
        super()._call(process, call)

    def _to_agent(self, process: Process, event: AgentEvent) -> None:
        if not isinstance(event, KubeAnswered) or not self.slow_s:
            super()._to_agent(process, event)
            return
        timeout_s = self.timeouts[event.call_id]
        late = KubeAnswered(event.call_id, 0, {}) if self.slow_s >= timeout_s else event
        self.late.append((self.now_s + min(self.slow_s, timeout_s), process, late))

    def advance(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            super().advance(min(0.25, until_s - self.now_s))
            due = [one for one in self.late if one[0] <= self.now_s] if self.slow_s else []
            self.late = [one for one in self.late if one not in due] if self.slow_s else []
            for _, process, event in due:
                super()._to_agent(process, event)
            self._exchange()


@pytest.mark.parametrize("slow_s", [1.0, 2.6, 4.5])
def test_an_agent_whose_api_server_takes_seconds_for_everything_keeps_its_lease_and_its_gangs(slow_s: float) -> None:
    """Above 2.5 s no renewal of its own lease counted, it renewed its cluster's no more, and guards ended what ran."""
    rig = SlowRig()
    rig.ready()
    token = rig.federation.place(pods=2)
    rig.run(token)
    rig.notes.clear()
    rig.slow_s = slow_s
    rig.advance(120.0)
    assert rig.federation.heard(token) == ["Bound", "Running"]
    assert not [note for note in rig.notes if note.event == "agent.fences"]
    other = rig.federation.place(pods=3)
    rig.ring()
    rig.advance(60.0)
    assert rig.federation.heard(other) == ["Bound", "Running"]


@pytest.mark.parametrize("ending", ["/pods", "/binding"])
def test_a_webhook_that_wants_one_gang_later_keeps_no_other_waiting(ending: str) -> None:
    rig = Rig().ready()
    busy = rig.federation.place(pods=2)
    rig.said = 'admission webhook "pace.example" denied the request: later'
    rig.override = lambda call: (
        429 if call.method == "POST" and call.path.endswith(ending) and is_of(call, "train-1-") else None
    )
    rig.ring()
    rig.advance(0.5)
    other = rig.federation.place(pods=2)
    rig.ring()
    assert rig.bound(other) == 2
    rig.advance(150.0)
    verdict = rig.federation.given_up(busy)
    assert verdict.reasons == ("BindDeadline",)
    assert verdict.detail.endswith(rig.said)


def is_of(call: CallKube, name: str) -> bool:
    assert call.body is not None
    return call.body["metadata"]["name"].startswith(name)
