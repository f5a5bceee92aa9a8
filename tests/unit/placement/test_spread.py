"""Spread groups: how replicas are divided over clusters, and that a cycle places all children, each alone, or none."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.engine import Bounds, Pending, Plan, decide, plan_cycle
from placement.explain import NOBODY, Explanation, why
from placement.fleet import Fleet
from placement.memory import Memory
from placement.model import Because, ClusterName, Divide, GroupUid, QueueName, Reason
from placement.quota import UNLIMITED, QuotaLine, Quotas
from placement.score import DEFAULT_POLICY
from placement.spread import Room, SpreadAsk, divide, even_share
from placement.trial import Trial
from placement.waiting import Waiting
from tests.builders import BUDGET, cluster, fleet, gang, nodes


def ask(
    replicas: int, *, least: int = 1, most: int | None = None, clusters: tuple[int, int], by: str = "even"
) -> SpreadAsk:
    low, high = clusters
    children = tuple(GroupUid(f"web-{number}") for number in range(1, high + 1))
    most = replicas - (low - 1) * least if most is None else most
    return SpreadAsk(children, replicas, least, most, low, Divide(by))


def shares(asked: SpreadAsk, **rooms: int) -> dict[str, int] | Because:
    """`rooms` best first: what each cluster could hold."""
    held = [Room(ClusterName(name), room) for name, room in rooms.items() if room >= asked.least]
    found = divide(asked, held)
    return found if isinstance(found, Because) else {one.cluster: one.replicas for one in found}


# --- dividing ---


@pytest.mark.parametrize(
    ("asked", "rooms", "wanted"),
    [
        pytest.param(ask(9, clusters=(3, 3)), {"a": 9, "b": 9, "c": 9}, {"a": 3, "b": 3, "c": 3}, id="evenly"),
        pytest.param(ask(10, clusters=(3, 3)), {"a": 9, "b": 9, "c": 9}, {"a": 4, "b": 3, "c": 3}, id="one over"),
        pytest.param(ask(9, clusters=(2, 3)), {"a": 9, "b": 9}, {"a": 5, "b": 4}, id="two of three are enough"),
        pytest.param(
            ask(9, clusters=(2, 3)), {"a": 9, "b": 9, "c": 9}, {"a": 3, "b": 3, "c": 3}, id="as many as may be"
        ),
        pytest.param(
            ask(9, clusters=(3, 3)), {"a": 2, "b": 9, "c": 9}, {"a": 2, "b": 4, "c": 3}, id="one has less room"
        ),
        pytest.param(
            ask(9, clusters=(3, 3)), {"a": 1, "b": 2, "c": 9}, {"a": 1, "b": 2, "c": 6}, id="two have less room"
        ),
        pytest.param(
            ask(9, clusters=(2, 2)), {"a": 3, "b": 4, "c": 5}, {"b": 4, "c": 5}, id="both give way to larger ones"
        ),
        pytest.param(
            ask(9, clusters=(2, 2)), {"a": 5, "b": 3, "c": 4, "d": 9}, {"a": 5, "d": 4}, id="the better of two stays"
        ),
        pytest.param(
            ask(9, least=2, clusters=(2, 3)),
            {"a": 9, "b": 1, "c": 9},
            {"a": 5, "c": 4},
            id="below the floor is nothing",
        ),
        pytest.param(
            ask(12, least=2, clusters=(3, 3), by="room"),
            {"a": 8, "b": 4, "c": 4},
            {"a": 6, "b": 3, "c": 3},
            id="by room",
        ),
        pytest.param(ask(10, clusters=(2, 2), by="room"), {"a": 9, "b": 3}, {"a": 8, "b": 2}, id="by room, of two"),
        pytest.param(
            ask(6, most=2, clusters=(3, 3)), {"a": 9, "b": 9, "c": 9}, {"a": 2, "b": 2, "c": 2}, id="the most"
        ),
    ],
)
def test_replicas_are_divided(asked: SpreadAsk, rooms: dict[str, int], wanted: dict[str, int]) -> None:
    assert shares(asked, **rooms) == wanted


def test_too_few_clusters_with_room_for_the_floor_are_said_so() -> None:
    found = shares(ask(9, least=3, clusters=(3, 3)), a=9, b=9, c=2)
    assert str(found) == "SpreadTooNarrow: needs 3 clusters with room for 3 replicas each, best is 2"


def test_too_little_room_in_all_of_them_is_said_so() -> None:
    found = shares(ask(9, clusters=(2, 3)), a=3, b=2, c=2, d=2)
    assert str(found) == "SpreadTooSmall: needs 9 replicas in 3 clusters, best is 7"


def test_where_nobody_knows_better_shares_are_even() -> None:
    assert [even_share(11, 4, number) for number in (1, 2, 3, 4)] == [3, 3, 3, 2]


@given(st.data())
def test_every_division_keeps_floors_and_rooms_and_sums_to_all_and_none_is_missed(data: st.DataObject) -> None:
    rooms = data.draw(st.lists(st.integers(0, 12), max_size=6))
    low = data.draw(st.integers(1, 4))
    high = data.draw(st.integers(low, 5))
    least = data.draw(st.integers(1, 4))
    replicas = data.draw(st.integers(low * least, 30))
    asked = ask(
        replicas,
        least=least,
        clusters=(low, min(high, replicas // least)),
        by=data.draw(st.sampled_from(["even", "room"])),
    )
    found = shares(asked, **{f"c{number}": room for number, room in enumerate(rooms)})
    holding = sorted((min(room, asked.most) for room in rooms if room >= least), reverse=True)
    used = holding[: len(asked.children)]
    if len(used) < low or sum(used) < replicas:
        assert isinstance(found, Because)
        return
    assert isinstance(found, dict)
    assert sum(found.values()) == replicas
    assert len(found) == len(used)
    for name, share in found.items():
        assert least <= share <= min(rooms[int(name[1:])], asked.most)
    if asked.divide is Divide.EVEN:
        lower = [share for name, share in found.items() if share < min(rooms[int(name[1:])], asked.most)]
        assert not lower or max(found.values()) - min(lower) <= 1


# --- a cycle ---


def spread(asked: SpreadAsk, name: str = "web", **fields: object) -> Pending:
    """A spread group of pods of a whole node each."""
    children = tuple(GroupUid(f"{name}-{number}") for number in range(1, len(asked.children) + 1))
    return replace(gang(f"{name}-1", pods=asked.least, **fields), spread=replace(asked, children=children))  # type: ignore[arg-type]


def plan_of(where: Fleet, *items: Pending, quotas: Quotas = UNLIMITED) -> Plan:
    return decide(where, items, policy=DEFAULT_POLICY, budget=BUDGET, quotas=quotas)


def placed(plan: Plan) -> dict[str, tuple[str, int]]:
    return {one.uid: (one.cluster, one.assignment.request.pods) for one in plan.decisions}


def test_every_child_gets_a_cluster_of_its_own_with_its_share() -> None:
    plan = plan_of(fleet(a=40, b=24, c=64), spread(ask(9, least=2, clusters=(3, 3))))
    assert placed(plan) == {"web-1": ("b", 3), "web-2": ("a", 3), "web-3": ("c", 3)}
    assert plan.spare == {}


def test_the_decision_says_how_a_child_came_to_its_share() -> None:
    plan = plan_of(fleet(a=40, b=16), spread(ask(6, least=2, clusters=(2, 2))))
    assert [one.candidates[0].terms[-2:] for one in plan.decisions] == [
        (("room", 2), ("replicas", 2)),
        (("room", 4), ("replicas", 4)),
    ]


def test_children_that_are_not_needed_are_spare() -> None:
    plan = plan_of(fleet(a=40, b=40), spread(ask(9, least=2, clusters=(2, 4))))
    assert placed(plan) == {"web-1": ("a", 5), "web-2": ("b", 4)}
    assert plan.spare == {"web-1": ("web-3", "web-4")}


@pytest.mark.parametrize(
    ("where", "reason"),
    [(fleet(a=40, b=8), Reason.SPREAD_TOO_NARROW), (fleet(a=24, b=24), Reason.SPREAD_TOO_SMALL)],
    ids=["a floor does not fit", "all of them do not fit"],
)
def test_nothing_is_placed_where_not_all_of_it_fits(where: Fleet, reason: Reason) -> None:
    plan = plan_of(where, spread(ask(7, least=2, clusters=(2, 2))))
    assert plan.decisions == ()
    assert [wait.because.reason for wait in plan.waiting if wait.because is not None] == [reason]


def test_who_comes_after_a_spread_group_sees_what_it_took() -> None:
    plan = plan_of(fleet(a=24, b=24), spread(ask(6, least=2, clusters=(2, 2)), at=1), gang("late", at=2))
    assert placed(plan) == {"web-1": ("a", 3), "web-2": ("b", 3)}


def test_two_spread_groups_share_the_clusters_that_hold_both() -> None:
    one, other = spread(ask(4, clusters=(2, 2)), "one", at=1), spread(ask(2, clusters=(2, 2)), "other", at=2)
    assert placed(plan_of(fleet(a=24, b=24), one, other)) == {
        "one-1": ("a", 2),
        "one-2": ("b", 2),
        "other-1": ("a", 1),
        "other-2": ("b", 1),
    }


def test_the_quota_has_to_hold_all_replicas_and_is_charged_once() -> None:
    where = fleet(a=40, b=40)
    web = spread(ask(6, clusters=(2, 2)))
    short: Quotas = {QueueName("default"): {"*": QuotaLine(47)}}
    (wait,) = plan_of(where, web, quotas=short).waiting
    assert wait.because is not None
    assert (wait.because.reason, wait.because.needs, wait.because.best) == (Reason.QUOTA_EXHAUSTED, 48, 47)
    enough: Quotas = {QueueName("default"): {"*": QuotaLine(56)}}
    plan = plan_of(where, web, gang("next", at=2), gang("last", at=3), quotas=enough)
    assert sorted(placed(plan)) == ["next", "web-1", "web-2"]


def test_gangs_that_counting_does_not_answer_are_divided_by_asking() -> None:
    hosts = fleet(a=24, b=16)
    item = spread(ask(5, least=1, clusters=(2, 2)))
    by_host = replace(item, request=replace(item.request, level_required="host"))
    small = replace(by_host, request=replace(by_host.request, roles=(replace(by_host.request.roles[0], gpus=2),)))
    assert placed(plan_of(hosts, small)) == {"web-1": ("b", 3), "web-2": ("a", 2)}
    (wait,) = plan_of(hosts, by_host).waiting
    assert wait.because is not None
    assert wait.because.reason is Reason.SPREAD_TOO_SMALL


def test_nothing_is_placed_or_taken_where_a_cluster_does_not_hold_the_share_that_was_counted_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It waits with a reason, as if there were too little room: an assertion would end the server with each cycle."""
    monkeypatch.setattr(Trial, "most", lambda _trial, _request, _cluster, most: most)
    plan = plan_of(fleet(a=40, b=16), spread(ask(8, least=2, clusters=(2, 2)), at=1), gang("late", pods=5, at=2))
    assert placed(plan) == {"late": ("a", 5)}
    (wait,) = plan.waiting
    assert wait.because is not None
    assert (wait.because.reason, wait.because.needs) == (Reason.SPREAD_TOO_SMALL, 4)


# --- children by themselves ---


def child(name: str, *, apart: tuple[str, ...] = (), at: int = 1) -> Pending:
    item = gang(name, pods=1, at=at)
    return replace(item, siblings=GroupUid("web-1"), apart=frozenset(ClusterName(one) for one in apart))


def test_a_child_never_goes_where_a_sibling_is() -> None:
    assert placed(plan_of(fleet(a=8, b=64), child("web-1", apart=("a",)))) == {"web-1": ("b", 1)}
    (wait,) = plan_of(fleet(a=8), child("web-1", apart=("a",))).waiting
    assert wait.because is not None
    assert wait.because.reason is Reason.SIBLING_THERE


def test_two_children_that_wait_at_once_do_not_meet() -> None:
    plan = plan_of(fleet(a=64, b=64), child("web-1"), child("web-2", at=2), child("web-3", at=3))
    assert placed(plan) == {"web-1": ("a", 1), "web-2": ("b", 1)}
    assert [wait.uid for wait in plan.waiting] == ["web-3"]


def test_a_group_without_siblings_is_not_kept_out() -> None:
    plan = plan_of(fleet(a=64), child("web-1"), gang("train", at=2))
    assert placed(plan) == {"web-1": ("a", 1), "train": ("a", 1)}


# --- bounds ---


def test_a_spread_group_is_not_begun_where_the_plan_has_no_room_for_all_of_it() -> None:
    waiting, memory = Waiting([spread(ask(3, clusters=(3, 3)))]), Memory()
    where = Fleet([cluster(name, nodes(64)) for name in "abc"])
    cut = plan_cycle(where, waiting, memory, policy=DEFAULT_POLICY, bounds=Bounds(BUDGET, places_max=2))
    assert (cut.decisions, cut.exhausted) == ((), True)
    whole = plan_cycle(where, waiting, memory, policy=DEFAULT_POLICY, bounds=Bounds(BUDGET, places_max=3))
    assert len(whole.decisions) == 3


@pytest.mark.long
@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.data())
def test_no_two_children_share_a_cluster_whatever_the_fleet(rooms: list[int], data: st.DataObject) -> None:
    low = data.draw(st.integers(1, 3))
    least = data.draw(st.integers(1, 2))
    replicas = data.draw(st.integers(low * least, 12))
    asked = ask(replicas, least=least, clusters=(low, min(data.draw(st.integers(low, 4)), replicas // least)))
    others = [gang(f"g{number}", pods=data.draw(st.integers(1, 3)), at=number + 2) for number in range(3)]
    where = Fleet([cluster(f"c{number}", nodes(8 * room)) for number, room in enumerate(rooms)])
    plan = plan_of(where, spread(asked), *others)
    children = [one for one in plan.decisions if one.uid.startswith("web-")]
    assert len({one.cluster for one in children}) == len(children)
    counts = [one.assignment.request.pods for one in children]
    assert not counts or (sum(counts) == replicas and min(counts) >= least and len(counts) >= low)
    used: dict[str, int] = {}
    for one in plan.decisions:
        used[one.cluster] = used.get(one.cluster, 0) + one.assignment.request.pods
    assert all(used.get(f"c{number}", 0) <= room for number, room in enumerate(rooms))


# --- reasons ---


def explained(where: Fleet, item: Pending, quotas: Quotas = UNLIMITED) -> Explanation:
    return why(where, item, NOBODY, quotas, DEFAULT_POLICY)


def test_why_says_how_it_would_be_divided() -> None:
    told = explained(fleet(a=40, b=24), spread(ask(6, least=2, clusters=(2, 2))))
    assert told.summary == "starts with the next decision: 3 in b, 3 in a"
    assert [(one.cluster, one.replicas) for one in told.shares] == [("b", 3), ("a", 3)]


@pytest.mark.parametrize(
    ("where", "because", "change"),
    [
        pytest.param(
            fleet(cluster("b", nodes(24, free=8)), a=40),
            "SpreadTooNarrow: needs 2 clusters with room for 2 replicas each, best is 1",
            "free 8 GPUs in b",
            id="a second cluster is too full",
        ),
        pytest.param(
            fleet(a=40),
            "SpreadTooNarrow: needs 2 clusters with room for 2 replicas each, best is 1",
            "join a cluster",
            id="there is no second cluster",
        ),
        pytest.param(
            fleet(a=24, b=24),
            "SpreadTooSmall: needs 7 replicas in 2 clusters, best is 6",
            "make room for 1 replicas more",
            id="all of them together are too small",
        ),
    ],
)
def test_why_says_what_is_missing_and_what_would_change_it(where: Fleet, because: str, change: str) -> None:
    told = explained(where, spread(ask(7, least=2, clusters=(2, 2))))
    assert (str(told.because), told.change, told.would_fit) == (because, change, None)


def test_why_names_the_quota_first() -> None:
    told = explained(fleet(a=40), spread(ask(6, clusters=(2, 2))), {QueueName("default"): {"*": QuotaLine(40)}})
    assert told.because is not None
    assert told.because.reason is Reason.QUOTA_EXHAUSTED
    assert told.change == "raise the quota of queue default by 8 GPUs and join a cluster"
