"""How scarce the room of each kind of pods is: of all that is free, how little it could use.

Where pods leave again, what is refused is what finds no room at that moment: mostly rare, large kinds, whose places
others take one device at a time. So room counts for more, the less there is of it (`placement.worth` asks).

The idea of pricing a resource by how little is left of it is that of bid prices in revenue management (Talluri and van
Ryzin, Management Science 44, 1998); weighing by a power of scarcity is that of alpha-fair shares (Mo and Walrand,
IEEE/ACM Transactions on Networking 8, 2000). The rule made of them is our own.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from placement.layout import Ints
from placement.mix import ClassMix, PodKind
from placement.node_states import NodeStates, Uses, use_of

SCARCITY_PARTS: Final = 16  # parts of one that are told apart
SCARCITY_MAX: Final = 100_000  # keeps all sums of weights within 64 bits; nothing outweighs such a kind anyway

_BLOCK: Final = 1 << 19  # kinds times states worked out at once: 4 MiB per step


def kinds_with_gpus(mix: ClassMix) -> list[PodKind]:
    """Those whose room has a worth, ascending."""
    return sorted(kind for kind in mix.counts if kind.gpus)


def scarcities(
    mix: ClassMix, products: tuple[str, ...], states: NodeStates, nodes: Ints, power: int
) -> tuple[int, ...]:
    """Per kind of `kinds_with_gpus` how scarce its room is, in SCARCITY_PARTS, from 1 to SCARCITY_MAX.

    All free milli, divided by those that pods of the kind could fill if nobody else came, to the given power. `nodes`:
    how many nodes are in each state. O(kinds x states).
    """
    kinds = kinds_with_gpus(mix)
    if not kinds:
        return ()
    uses = Uses(kinds)
    all_free = int(np.maximum(states.free, 0).sum(axis=0) @ nodes)
    room = np.zeros(len(kinds), dtype=np.int64)
    block = _BLOCK // max(1, len(kinds))
    for at in range(0, len(states), block):
        room += _room(kinds, uses, products, states.part(slice(at, at + block)), nodes[at : at + block])
    return tuple(_parts(all_free, one, power) for one in room.tolist())


def _room(kinds: list[PodKind], uses: Uses, products: tuple[str, ...], states: NodeStates, nodes: Ints) -> Ints:
    """Per kind the milli that its pods would fill; CPU is not rounded to whole pods, as in what a node is worth."""
    place = {use: at for at, use in enumerate(uses.all)}
    pods = uses.pods(states.free)[[place[use_of(kind)] for kind in kinds]]
    accepts = np.array([[not kind.products or one in kind.products for one in products] for kind in kinds])
    asked = np.array([[kind.cpu_milli] for kind in kinds], dtype=np.int64)
    cpu = np.maximum(asked, 1)
    size = np.array([[kind.gpus * kind.gpu_milli] for kind in kinds], dtype=np.int64)
    room = np.where(asked, np.minimum(pods * cpu, states.cpu), pods) * size // cpu
    room *= (states.cpu >= asked) & accepts[:, states.product_ids]
    found: Ints = room @ nodes
    return found


def _parts(all_free: int, room: int, power: int) -> int:
    """In whole numbers, so that all machines agree."""
    if all_free >= room * SCARCITY_MAX:  # nothing is larger than that; also where there is no room at all
        return SCARCITY_PARTS * (SCARCITY_MAX if power and all_free else 1)
    found: int = SCARCITY_PARTS * all_free**power // room**power
    return min(found, SCARCITY_PARTS * SCARCITY_MAX)
