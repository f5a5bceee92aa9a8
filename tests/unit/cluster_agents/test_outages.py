"""An API server that goes away, answers slowly or has too much to do while gangs are built: whose fault that is not."""

import pytest

from cluster_agents.core.events import CallKube
from tests.unit.cluster_agents.rig import Rig

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
