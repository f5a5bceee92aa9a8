"""Which pods of a gang go to which nodes: the value that `assign` returns and that tables take and give back.

Choosing the nodes does not belong here (see `placement.assign`), carrying it out even less.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from placement.model import GangRequest, NodeName


class Part(NamedTuple):
    """`pods` equal pods of one role on one node."""

    role: str
    node: NodeName
    pods: int


class PodOnNode(NamedTuple):
    """One pod; `rank` counts from 0 over the whole gang, roles in the order in which the request names them."""

    role: str
    rank: int
    node: NodeName


@dataclass(frozen=True, slots=True)
class Assignment:
    """A node for every pod of `request`.

    `parts` follow the request's roles; within a role, neighbours in the topology are neighbours here, hence in rank.
    """

    request: GangRequest
    parts: tuple[Part, ...]
    preferred_met: bool = False  # whether all pods stand in one domain of the preferred level

    @property
    def pods(self) -> tuple[PodOnNode, ...]:
        """One entry per pod, by rank. O(pods)."""
        return tuple(PodOnNode(role, rank, node) for rank, (role, node) in enumerate(self._seats()))

    @property
    def nodes(self) -> tuple[NodeName, ...]:
        """The nodes in use, each once, by name."""
        return tuple(sorted({part.node for part in self.parts}))

    def _seats(self) -> Iterator[tuple[str, NodeName]]:
        for part in self.parts:
            for _ in range(part.pods):
                yield part.role, part.node
