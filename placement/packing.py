"""Pods of several shapes side by side on a few nodes, where filling one shape after the other has found no way.

Node after node, every way to fill it up is tried on every rest that the nodes before could leave: complete while all
rests are kept, and bounded, since only the smallest are where there are too many. Pure arithmetic on what is free; in
which order nodes should be filled is `placement.node_order`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

STEPS_MAX: Final = 1_000
"""Ways to fill a node that are tried in one domain: some milliseconds. Only gangs of unlike roles get here, and only
where enough is free in all."""

NODES_MAX: Final = 128  # looked at, fullest first: a gang that needs more of them is filled in order or not at all
WAYS_MAX: Final = 16  # of filling one node: two or three roles have fewer on nodes of 8 GPUs

Amounts = tuple[int, ...]
Rest = tuple[int, ...]  # pods of each shape that have no node yet
Filling = tuple[int, ...]  # pods of each shape on one node


def pack(
    nodes: Sequence[Amounts],
    allowed: Sequence[Sequence[bool]],
    shapes: Sequence[Amounts],
    counts: Sequence[int],
    *,
    steps_max: int = STEPS_MAX,
) -> list[Filling] | None:
    """Pods of each shape on each node, so that all of `counts` have one; None if `steps_max` steps have found no way.

    Complete while nothing passes a bound. `nodes` and `shapes` are amounts by resource; `allowed[node][shape]` says
    whether such pods may stand there. Every filling is as full as it can be. Equal arguments give an equal answer.
    """
    looked_at = zip(nodes[:NODES_MAX], allowed[:NODES_MAX], strict=True)
    fillings = [_fillings(free, may, shapes, counts) for free, may in looked_at]
    rests: list[dict[Rest, tuple[Rest, Filling]]] = []
    front: list[Rest] = [tuple(counts)]
    steps_left = steps_max
    for number, ways in enumerate(fillings):
        still = sum(len(one) for one in fillings[number:])
        width = max(1, steps_left // still) if still else len(front)
        found: dict[Rest, tuple[Rest, Filling]] = {}
        for rest in front[:width]:
            steps_left -= len(ways)
            if steps_left < 0:
                return None
            for way in ways:
                used = tuple(map(min, way, rest))
                after = tuple(r - u for r, u in zip(rest, used, strict=True))
                found.setdefault(after, (rest, used))
        rests.append(found)
        front = _smallest(found, shapes)
        if not any(front[0]):
            return _way_back(rests, front[0], len(nodes))
    return None


def _fillings(free: Amounts, may: Sequence[bool], shapes: Sequence[Amounts], counts: Sequence[int]) -> list[Filling]:
    """All ways to fill a node so that no further pod fits; one way, with nothing, where none does."""
    ways = list(islice(_ways(free, may, shapes, counts), WAYS_MAX))
    return [way for way in ways if not any(way != other and _at_least(other, way) for other in ways)]


def _ways(free: Amounts, may: Sequence[bool], shapes: Sequence[Amounts], counts: Sequence[int]) -> Iterator[Filling]:
    """As many of the last shape as fit beside each number of the others, most of the first shapes first."""
    shape, most = shapes[0], counts[0] if may[0] else 0
    for have, asked in zip(free, shape, strict=True):
        if asked:
            most = min(most, have // asked)
    if len(shapes) == 1:
        yield (most,)
        return
    for pods in range(most, -1, -1):
        left = tuple(have - pods * asked for have, asked in zip(free, shape, strict=True))
        for others in _ways(left, may[1:], shapes[1:], counts[1:]):
            yield (pods, *others)


def _at_least(one: Filling, other: Filling) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True))


def _smallest(found: dict[Rest, tuple[Rest, Filling]], shapes: Sequence[Amounts]) -> list[Rest]:
    """The rests of which none is at most another in every shape, smallest first by what they still ask for."""
    ordered = sorted(found, key=lambda rest: (_asked(rest, shapes), rest))
    kept: list[Rest] = []
    for rest in ordered:
        if not any(_at_least(rest, other) for other in kept):
            kept.append(rest)
    return kept


def _asked(rest: Rest, shapes: Sequence[Amounts]) -> Amounts:
    return tuple(sum(map(int.__mul__, rest, amounts)) for amounts in zip(*shapes, strict=True))


def _way_back(rests: Sequence[dict[Rest, tuple[Rest, Filling]]], last: Rest, nodes: int) -> list[Filling]:
    way: list[Filling] = []
    for found in reversed(rests):
        last, used = found[last]
        way.append(used)
    way.reverse()
    return way + [(0,) * len(last)] * (nodes - len(way))
