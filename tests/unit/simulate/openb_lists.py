"""Small lists in the openb format for tests, and a checker that recomputes an exam from its assignments file alone."""

from __future__ import annotations

import csv
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from io import StringIO

from federation.simulate.openb_lists import NodeSpec, PodShape, PodSpec

KINDS = ((96_000, 393_216, 8, "G2"), (64_000, 262_144, 2, "P100"), (32_000, 131_072, 4, "T4"))
SIZES = ((1, 1000), (1, 1000), (1, 460), (1, 810), (1, 250), (0, 0), (2, 1000), (4, 1000), (8, 1000))


def nodes(count: int = 18) -> tuple[NodeSpec, ...]:
    return tuple(NodeSpec(f"node-{at:03}", *KINDS[at % len(KINDS)]) for at in range(count))


def pods(count: int = 120, seed: int = 7) -> tuple[PodSpec, ...]:
    dice = random.Random(seed)
    found = []
    for at in range(count):
        gpus, milli = dice.choice(SIZES)
        models = ("G2", "T4") if dice.random() < 0.1 else ()
        shape = PodShape(dice.choice((2_000, 4_000, 8_000, 11_400)), dice.choice((4_096, 16_384)), gpus, milli, models)
        found.append(PodSpec(f"pod-{at:04}", shape))
    return tuple(found)


def node_csv(listed: Sequence[NodeSpec]) -> str:
    lines = [f"{one.name},{one.cpu_milli},{one.memory_mib},{one.gpus},{one.model}" for one in listed]
    return "\n".join(["sn,cpu_milli,memory_mib,gpu,model", *lines, ""])


def pod_csv(listed: Sequence[PodSpec]) -> str:
    lines = []
    for name, shape, _, _ in listed:
        amounts = f"{shape.cpu_milli},{shape.memory_mib},{shape.gpus},{shape.gpu_milli}"
        lines.append(f"{name},{amounts},{'|'.join(shape.models)}")
    return "\n".join(["name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec", *lines, ""])


def recomputed(
    text: str, listed_nodes: Sequence[NodeSpec], listed_pods: Sequence[PodSpec], loads: Sequence[int]
) -> Mapping[int, dict[int, float]]:
    """Unallocated percent by seed and load, from an assignments file; AssertionError where a row is not feasible."""
    node_of = {one.name: one for one in listed_nodes}
    shape_of = {one.name: one.shape for one in listed_pods}
    capacity = sum(1000 * one.gpus for one in listed_nodes)
    by_seed: dict[int, list[dict[str, str]]] = defaultdict(list)
    for row in csv.DictReader(StringIO(text)):
        by_seed[int(row["seed"])].append(row)
    found = {}
    for seed, rows in by_seed.items():
        cpu: dict[str, int] = defaultdict(int)
        memory: dict[str, int] = defaultdict(int)
        milli: dict[tuple[str, int], int] = defaultdict(int)
        arrived = allocated = 0
        points: dict[int, list[float]] = defaultdict(list)
        for order, row in enumerate(rows):
            shape, node = shape_of[row["pod"]], row["node"]
            assert int(row["order"]) == order
            assert int(row["gpu_milli"]) == shape.gpu_milli
            arrived += shape.gpus * shape.gpu_milli
            if node:
                devices = [int(one) for one in row["gpus"].split("|") if one]
                assert len(set(devices)) == shape.gpus
                assert not shape.models or node_of[node].model in shape.models
                cpu[node] += shape.cpu_milli
                memory[node] += shape.memory_mib
                assert cpu[node] <= node_of[node].cpu_milli
                assert memory[node] <= node_of[node].memory_mib
                for device in devices:
                    assert 0 <= device < node_of[node].gpus
                    milli[node, device] += shape.gpu_milli
                    assert milli[node, device] <= 1000
                allocated += shape.gpus * shape.gpu_milli
            points[round(100 * arrived / capacity)].append(100 * allocated / capacity)
        at = {load: max(point for point in points if point <= load) for load in loads}
        found[seed] = {load: 100 - sum(points[at[load]]) / len(points[at[load]]) for load in loads}
    return found
