"""Who arrives, and in which order: the workload of the FGD exam for one seed. Pure but for its own seeded generator.

The protocol: Weng et al., USENIX ATC 2023, and hkust-adsl/kubernetes-scheduler-simulator. Its own generator is not
needed: any other gives the same means.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

from federation.simulate.openb_lists import GPU_MILLI, NodeSpec, PodSpec

LOAD_MAX: Final = Fraction(13, 10)  # of all GPUs, asked for by all that arrive
ARRIVALS_MAX: Final = 10_000_000  # of one seed: an hour of work, and a thousand times those of the published lists


def capacity_milli(nodes: Sequence[NodeSpec]) -> int:
    """All GPUs of the nodes."""
    return GPU_MILLI * sum(node.gpus for node in nodes)


def arrivals(pods: Sequence[PodSpec], capacity: int, seed: int) -> tuple[PodSpec, ...]:
    """The pods, shuffled, and brought to 130 % of `capacity` milli GPUs.

    Where they ask for less, copies of pods drawn with replacement follow until the next one would ask for more; where
    they ask for more, pods are taken out at random until they do not. O(pods).
    """
    dice = random.Random(seed)
    target = int(capacity * LOAD_MAX)
    order = _thinned(sorted(pods), target, dice)
    dice.shuffle(order)
    missing = target - _demand(order)
    return _with_copies(order, sorted(pods), missing, dice) if len(order) == len(pods) else tuple(order)


def arrivals_expected(pods: Sequence[PodSpec], capacity: int) -> int:
    """About how many pods arrive: copies ask for what the list asks for on average, which may be next to nothing."""
    demand = _demand(pods)
    return int(len(pods) * max(Fraction(1), capacity * LOAD_MAX / demand))


def _demand(pods: Sequence[PodSpec]) -> int:
    return sum(pod.shape.demand_milli for pod in pods)


def _with_copies(
    order: list[PodSpec], originals: Sequence[PodSpec], missing: int, dice: random.Random
) -> tuple[PodSpec, ...]:
    while (copy := dice.choice(originals)).shape.demand_milli <= missing:
        missing -= copy.shape.demand_milli
        order.append(copy)
    return tuple(order)


def _thinned(pods: list[PodSpec], target: int, dice: random.Random) -> list[PodSpec]:
    demand = _demand(pods)
    leaving: set[int] = set()
    while demand > target:
        at = dice.randrange(len(pods))
        if at not in leaving:
            leaving.add(at)
            demand -= pods[at].shape.demand_milli
    return [pod for at, pod in enumerate(pods) if at not in leaving]


def node_order(nodes: Sequence[NodeSpec], seed: int) -> tuple[NodeSpec, ...]:
    """The nodes in the order by which this seed breaks ties between equal scores."""
    order = sorted(nodes)
    random.Random(f"nodes-{seed}").shuffle(order)
    return tuple(order)
