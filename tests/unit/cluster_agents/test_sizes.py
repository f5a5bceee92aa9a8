"""Plans of other sizes, pure: who joins where, who leaves, and what of it an intent can say."""

from __future__ import annotations

from typing import Any

from cluster_agents.core.plan import Plan, PlanRole, intent_configmap, read_intent
from cluster_agents.core.sizes import given_back, grown, joined, kept, parted, shrunk
from placement.assignment import Assignment, Part
from placement.model import GangRequest, NodeName, RoleRequest


def plan(*counts: int, **more: Any) -> Plan:
    """Roles `a`, `b`, … with so many pods, on nodes of their own."""
    roles = tuple(PlanRole(chr(97 + at), count, 1, 1, 1_000, 1_024) for at, count in enumerate(counts))
    nodes = tuple(f"n-{seat}" for seat in range(sum(counts)))
    facts: dict[str, Any] = {
        "uid": "l1.1",
        "token": "l1.2",
        "namespace": "default",
        "name": "train",
        "workload": "pods",
        "policy": "StopAndMove",
        "disruption_mode": "all",
        "min_count": 1,
        "grace_s": 30,
        "spec_digest": "d",
        "roles": roles,
        "nodes": nodes,
    }
    return Plan(**(facts | more))


def more(*parts: tuple[str, str, int]) -> Assignment:
    roles = tuple(RoleRequest(role, pods, pods, gpus=1) for role, _, pods in parts)
    request = GangRequest(roles, min_count=sum(role.count for role in roles))
    return Assignment(request, tuple(Part(role, NodeName(node), pods) for role, node, pods in parts))


def test_those_who_join_get_the_lowest_free_ranks_and_count_when_they_are_bound() -> None:
    after = grown(plan(2, 2), more(("a", "n-8", 1), ("b", "n-9", 1)), (), 40)
    assert [(after.rank(seat), after.nodes[seat]) for seat in after.joining] == [(4, "n-8"), (5, "n-9")]
    assert (after.counts, after.settled, after.resized_at) == ((3, 3), 4, 40)
    settled = joined(after)
    assert (settled.joining, settled.settled, settled.counts) == ((), 6, (3, 3))


def test_the_highest_ranks_of_a_role_leave() -> None:
    after = shrunk(plan(2, 3), (2, 1), 40)
    assert [after.rank(seat) for seat in after.leaving] == [3, 4]
    assert (after.counts, after.settled) == ((2, 3), 3)
    rest = parted(after)
    assert (rest.nodes, rest.counts, rest.leaving) == (("n-0", "n-1", "n-2"), (2, 1), ())


def test_ranks_that_became_free_are_taken_again() -> None:
    rest = parted(shrunk(plan(3, 2), (1, 2), 40))
    assert [rest.rank(seat) for seat in range(rest.pods)] == [0, 3, 4]
    again = grown(rest, more(("b", "n-9", 2)), (), 41)
    assert [again.rank(seat) for seat in again.joining] == [1, 2]
    assert [again.pod(seat).split("-")[1] for seat in range(again.pods)] == ["0", "1", "2", "3", "4"]


def test_those_who_cannot_join_leave_and_the_plan_is_as_before_but_for_the_resize() -> None:
    before = plan(2)
    after = parted(given_back(grown(before, more(("a", "n-9", 2)), (), 40), ("BindDeadline", "late")))
    assert after == kept(before, 40, ("BindDeadline", "late"))


def test_nodes_of_both_sizes_are_held_until_those_who_leave_are_gone() -> None:
    after = shrunk(plan(3), (1,), 40)
    assert sorted(after.holdings()) == ["n-0", "n-1", "n-2"]
    assert sorted(parted(after).holdings()) == ["n-0"]


def test_parts_of_gpus_stay_with_their_pods() -> None:
    shared = plan(2, devices=("mig-a", "mig-b"))
    after = grown(shared, more(("a", "n-9", 1)), ("mig-c",), 40)
    assert after.devices == ("mig-a", "mig-b", "mig-c")
    assert parted(shrunk(joined(after), (1,), 41)).devices == ("mig-a",)


def test_a_plan_on_its_way_is_read_as_it_was_written() -> None:
    after = grown(parted(shrunk(plan(3, 2), (1, 2), 40)), more(("b", "n-9", 1)), (), 41)
    found = read_intent(intent_configmap(after, None, "muster"))
    assert found is not None
    assert found.plan == after


def test_a_plan_whose_seats_do_not_agree_is_not_read() -> None:
    for wrong in (
        plan(2, joining=(2,)),
        plan(2, ranks=(0, 0)),
        plan(2, ranks=(0,)),
        plan(2, joining=(1,), leaving=(1,)),
    ):
        assert read_intent(intent_configmap(wrong, None, "muster")) is None


def test_a_plan_of_an_older_version_has_its_seats_as_ranks() -> None:
    old = plan(2)
    assert [old.rank(seat) for seat in range(2)] == [0, 1]
    assert (old.settled, old.resized_at, old.growable) == (2, 0, False)
