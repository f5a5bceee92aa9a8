"""The nodes of one exam with what is free on each, device by device. Which node is best is a policy's to say.

Amounts change by `take` and `give` only, and are conserved: 0 <= free <= total on every node and device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from federation.simulate.openb_lists import GPU_MILLI, NodeSpec, PodShape

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NO_DEVICE: Final = -1  # free milli of a device that a node does not have: nothing fits there


@dataclass(frozen=True, slots=True)
class Spot:
    """A node, by its place in the pool, and the devices on it."""

    node: int
    devices: tuple[int, ...]


@dataclass(slots=True)
class Changes:
    """Nodes in the order in which they changed: who remembers how far they have read sees what is new."""

    nodes: list[int] = field(default_factory=list)

    def since(self, at: int) -> Ints:
        """The nodes that changed, each once, ascending."""
        return np.array(sorted(set(self.nodes[at:])), dtype=np.int64)


class Pool:
    """`free` holds a row per device and a column per node, as `cpu` and `memory` have one per node."""

    __slots__ = ("_masks", "changes", "cpu", "free", "memory", "model_ids", "models", "nodes", "ranks")

    def __init__(self, nodes: Sequence[NodeSpec], ranks: Ints | None = None) -> None:
        """`ranks`: in which order nodes are to be finished one after another, if not in that of `nodes`."""
        self.nodes = tuple(nodes)
        self.ranks: Ints = np.arange(len(self.nodes)) if ranks is None else ranks
        self.cpu: Ints = np.array([node.cpu_milli for node in nodes], dtype=np.int64)
        self.memory: Ints = np.array([node.memory_mib for node in nodes], dtype=np.int64)
        devices = np.arange(max(node.gpus for node in nodes))[:, None]
        has = devices < np.array([node.gpus for node in nodes])
        self.free: Ints = np.where(has, GPU_MILLI, NO_DEVICE).astype(np.int64)
        self.models = tuple(sorted({node.model for node in nodes}))
        number = {model: index for index, model in enumerate(self.models)}
        self.model_ids: Ints = np.array([number[node.model] for node in nodes], dtype=np.int64)
        self.changes = Changes()
        self._masks: dict[tuple[str, ...], Bools] = {}

    def __len__(self) -> int:
        return len(self.nodes)

    def accepts(self, models: tuple[str, ...]) -> Bools:
        """Per number of a model whether it is one of `models`; all are if none is named."""
        mask = self._masks.get(models)
        if mask is None:
            mask = self._masks[models] = np.array([not models or model in models for model in self.models])
        return mask

    def fits(self, shape: PodShape, nodes: Ints | slice = slice(None)) -> Bools:
        """On which of `nodes` there is room."""
        fits = self.cpu[nodes] >= shape.cpu_milli
        fits &= self.memory[nodes] >= shape.memory_mib
        if shape.models:
            fits &= self.accepts(shape.models)[self.model_ids[nodes]]
        if shape.gpus == 1:
            fits &= self.free[:, nodes].max(axis=0) >= shape.gpu_milli
        elif shape.gpus:
            fits &= (self.free[:, nodes] >= shape.gpu_milli).sum(axis=0) >= shape.gpus
        return fits

    def tightest(self, node: int, shape: PodShape) -> tuple[int, ...]:
        """The devices that the pod leaves the least on; for whole GPUs the lowest-numbered free ones."""
        free = self.free[:, node].tolist()
        suited = sorted((milli, device) for device, milli in enumerate(free) if milli >= shape.gpu_milli)
        return tuple(sorted(device for _, device in suited[: shape.gpus]))

    def take(self, spot: Spot, shape: PodShape) -> None:
        """The pod has its place. AssertionError, and nothing taken, if there is no room."""
        node, devices = spot.node, list(spot.devices)
        assert len(set(devices)) == shape.gpus, "as many devices as asked for"
        assert self.cpu[node] >= shape.cpu_milli, "the CPU is free"
        assert self.memory[node] >= shape.memory_mib, "the memory is free"
        assert (self.free[devices, node] >= shape.gpu_milli).all(), "the devices have room"
        assert self.accepts(shape.models)[self.model_ids[node]], "the model is accepted"
        self._add(spot, shape, -1)

    def give(self, spot: Spot, shape: PodShape) -> None:
        """The pod has ended. AssertionError, and nothing given, above what the node has."""
        spec = self.nodes[spot.node]
        assert self.cpu[spot.node] + shape.cpu_milli <= spec.cpu_milli, "no more CPU than there is"
        assert self.memory[spot.node] + shape.memory_mib <= spec.memory_mib, "no more memory than there is"
        assert (self.free[list(spot.devices), spot.node] + shape.gpu_milli <= GPU_MILLI).all(), "no more than one GPU"
        self._add(spot, shape, 1)

    def _add(self, spot: Spot, shape: PodShape, sign: int) -> None:
        self.cpu[spot.node] += sign * shape.cpu_milli
        self.memory[spot.node] += sign * shape.memory_mib
        self.free[list(spot.devices), spot.node] += sign * shape.gpu_milli
        self.changes.nodes.append(spot.node)
