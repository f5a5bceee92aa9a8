"""Other sizes of a gang's plan, pure: pods that join with nodes of their own, pods that leave by the highest rank.

While pods join or leave the plan has the seats of both sizes, so that their nodes stay held and a restarted agent finds
them. Which step is taken, and when, is decided in `resizing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count
from typing import NamedTuple

import msgspec

from cluster_agents.core.plan import Plan
from placement.assignment import Assignment


class _Seat(NamedTuple):
    """One pod of a role. `joins` and `leaves`: on its way."""

    rank: int
    node: str
    device: str
    joins: bool = False
    leaves: bool = False


def grown(
    plan: Plan, chosen: Assignment, devices: tuple[str, ...], resized_at: int, declined: tuple[str, ...] = ()
) -> Plan:
    """The plan with the pods of `chosen` joining, under the lowest ranks that are free; `devices` and `declined` as in
    `Plan`."""
    roles = _seats(plan)
    at = {role.name: index for index, role in enumerate(plan.roles)}
    taken = {seat.rank for seats in roles for seat in seats}
    free = (rank for rank in count() if rank not in taken)
    for number, pod in enumerate(chosen.pods):
        device = devices[number] if devices else ""
        roles[at[pod.role]].append(_Seat(next(free), str(pod.node), device, joins=True))
    return _plan(plan, (sorted(seats) for seats in roles), resized_at=resized_at, declined=declined)


def shrunk(plan: Plan, counts: tuple[int, ...], resized_at: int) -> Plan:
    """The plan with the pods of the highest ranks of each role leaving, so that so many stay."""
    roles = [
        [seat._replace(leaves=number >= stay) for number, seat in enumerate(seats)]
        for seats, stay in zip(_seats(plan), counts, strict=True)
    ]
    return _plan(plan, roles, resized_at=resized_at, declined=())


def kept(plan: Plan, resized_at: int, declined: tuple[str, ...] = ()) -> Plan:
    """The same pods as the outcome of this resize; `declined`: why no others, a reason's code and words."""
    return msgspec.structs.replace(plan, resized_at=resized_at, declined=declined)


def joined(plan: Plan) -> Plan:
    """The plan once all who join are bound."""
    return _plan(plan, _each(plan, lambda seat: seat._replace(joins=False)))


def given_back(plan: Plan, declined: tuple[str, ...]) -> Plan:
    """The plan when those who join cannot: they leave again."""
    return _plan(plan, _each(plan, lambda seat: seat._replace(joins=False, leaves=seat.joins)), declined=declined)


def parted(plan: Plan) -> Plan:
    """The plan once nothing of those who leave is left."""
    return _plan(plan, ([seat for seat in seats if not seat.leaves] for seats in _seats(plan)))


def _each(plan: Plan, change: Callable[[_Seat], _Seat]) -> list[list[_Seat]]:
    return [[change(seat) for seat in seats] for seats in _seats(plan)]


def _seats(plan: Plan) -> list[list[_Seat]]:
    """By role, in order of rank."""
    joining, leaving = frozenset(plan.joining), frozenset(plan.leaving)
    found: list[list[_Seat]] = []
    start = 0
    for role in plan.roles:
        stop = start + role.count
        seats = range(start, stop)
        found.append(
            [_Seat(plan.rank(at), plan.nodes[at], plan.device(at), at in joining, at in leaving) for at in seats]
        )
        start = stop
    return found


def _plan(plan: Plan, by_role: Iterable[list[_Seat]], **changes: object) -> Plan:
    roles = list(by_role)
    seats = [seat for role in roles for seat in role]
    ranks = tuple(seat.rank for seat in seats)
    devices = tuple(seat.device for seat in seats)
    counted = (msgspec.structs.replace(role, count=len(found)) for role, found in zip(plan.roles, roles, strict=True))
    return msgspec.structs.replace(
        plan,
        roles=tuple(counted),
        nodes=tuple(seat.node for seat in seats),
        devices=devices if any(devices) else (),
        ranks=() if ranks == tuple(range(len(seats))) else ranks,
        joining=tuple(at for at, seat in enumerate(seats) if seat.joins),
        leaving=tuple(at for at, seat in enumerate(seats) if seat.leaves),
        **changes,
    )
