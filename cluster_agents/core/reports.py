"""When a report leaves and what is in it: full ones, deltas on the report before, and heartbeats.

Which rows changed is the inventory's; how far they show the desired state (`applied`) is given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from cluster_agents.core.config import AgentConfig
from cluster_agents.core.inventory import Inventory
from federation.protocol.messages import DEVICE_KINDS_MAX, NODE_KINDS_MAX, NodeKind, NodeKinds, NodeRows, Report, Stamp
from federation.protocol.parts import KINDS_BYTES_MAX, split
from placement.fleet import NodeRow

REPORT_GAP_S: Final = 1.0
"""Between reports of one agent: deltas leave at most 1 s after a change (DESIGN §5), and a burst makes one."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a report says beside its rows."""

    lineage: str
    applied: int
    epoch: int
    live: bool
    tokens: tuple[str, ...] | None
    uids: tuple[str, ...] = ()
    keeps_records: bool = False
    recovers: str = ""
    roomy: tuple[str, ...] = ()


class Reporter:
    """The reports of this process since it became the one that acts."""

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self._boot = 0
        self._seq = 0
        self._last: Stamp | None = None
        self._last_s = float("-inf")
        self._full_s = float("-inf")
        self._full_wanted = True
        self._touched = True

    def begin(self, boot: int) -> None:
        """First a full report; its stamp is higher than all of earlier holders of the local lease."""
        if boot > self._boot:
            self._boot, self._seq = boot, 0
        self._full_wanted = True

    def want_full(self) -> None:
        """A server lacks the report that our next delta would follow."""
        self._full_wanted = True

    def touch(self) -> None:
        """Something beside the rows changed that a report says."""
        self._touched = True

    def due_s(self, inventory: Inventory) -> float:
        """When the next report should leave."""
        if self._full_wanted or self._touched or inventory.unreported:
            return self._last_s + min(REPORT_GAP_S, self._config.timings.heartbeat_s)
        return min(self._last_s + self._config.timings.heartbeat_s, self._full_s + self._config.timings.report_full_s)

    def make(self, now_s: float, facts: Facts, inventory: Inventory) -> list[Report]:
        """The report that leaves now, in as many parts as it takes."""
        full = self._full_wanted or self._last is None or now_s >= self._full_s + self._config.timings.report_full_s
        if full:
            rows, gone = inventory.take_all(), list[str]()
            self._full_s, self._full_wanted = now_s, False
        else:
            rows, gone = inventory.take_changes()
        follows = None if full else self._last
        self._last_s, self._touched = now_s, False
        report = Report(
            cluster=self._config.cluster,
            lineage=facts.lineage,
            stamp=Stamp(self._boot, self._seq + 1),
            follows=follows,
            applied=facts.applied,
            epoch=facts.epoch,
            live=facts.live,
            fence_strength=self._config.fence_strength.value,
            tokens=facts.tokens,
            uids=facts.uids,
            keeps_records=facts.keeps_records,
            recovers=facts.recovers,
            roomy=facts.roomy,
            rows=node_rows(rows, gone),
            node_kinds=node_kinds(rows, [inventory.gpus_unhealthy(row.name) for row in rows]),
        )
        parts = split(report)
        self._seq += len(parts)
        self._last = parts[-1].stamp
        return parts


def node_rows(rows: Sequence[NodeRow], gone: Sequence[str] = ()) -> NodeRows:
    """Rows in the columns of a message; labels and taints are `node_kinds`'."""
    if not rows:
        return NodeRows(gone=tuple(gone))
    return NodeRows(
        name=tuple(row.name for row in rows),
        product=tuple(row.product for row in rows),
        cpu_milli=tuple(row.cpu_milli_free for row in rows),
        memory_mib=tuple(row.memory_mib_free for row in rows),
        gpus=tuple(row.gpus_total for row in rows),
        gpus_free=tuple(row.gpus_free for row in rows),
        cpu_milli_total=tuple(row.cpu_milli_total for row in rows),
        memory_mib_total=tuple(row.memory_mib_total for row in rows),
        clique=tuple(row.clique for row in rows),
        rack=tuple(row.rack for row in rows),
        block=tuple(row.block for row in rows),
        zone=tuple(row.zone for row in rows),
        usable=tuple(row.usable and not row.taints for row in rows),
        gone=tuple(gone),
    )


def node_kinds(rows: Sequence[NodeRow], unhealthy: Sequence[int] = ()) -> NodeKinds:
    """Labels, taints and parts of GPUs of the rows, as far as a message has room for them (see `_kinds`), and how many
    GPUs of each are unhealthy."""
    devices = _device_kinds(rows)
    at = {kind: number for number, kind in enumerate(devices)}
    devices_at = tuple(tuple((at[one[0]], *one[1:]) for one in row.devices if one[0] in at) for row in rows)
    found = NodeKinds(
        devices=devices,
        devices_at=devices_at if devices else (),
        unhealthy=tuple(unhealthy) if any(unhealthy) else (),
    )
    if not any(row.labels or row.taints for row in rows):
        return found
    kinds = _kinds(rows)
    number = {kind: index for index, kind in enumerate(kinds)}
    return msgspec.structs.replace(
        found,
        kinds=kinds,
        at=tuple(number.get(_kind(row), 0) for row in rows),
        tainted=tuple(row.usable and bool(row.taints) and _kind(row) in number for row in rows),
    )


def _device_kinds(rows: Sequence[NodeRow]) -> tuple[str, ...]:
    """The kinds of parts of GPUs that the most nodes have, as many as a report may name, by name."""
    counts = Counter(kind for row in rows for kind, _, _ in row.devices)
    return tuple(sorted(sorted(counts, key=lambda kind: (-counts[kind], kind))[:DEVICE_KINDS_MAX]))


def _kind(row: NodeRow) -> NodeKind:
    return NodeKind(row.labels, row.taints)


def _kinds(rows: Sequence[NodeRow]) -> tuple[NodeKind, ...]:
    """The plain kind, then the most frequent others, as many as a message has room for.

    A node of a kind that is left out is reported without its labels; if it is tainted, as one that takes no pods. This
    agent itself knows better, and has the last word.
    """
    counts = Counter(map(_kind, rows))
    kept, size = [NodeKind()], 0
    for kind, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0].labels, item[0].taints)):
        size += len(msgspec.msgpack.encode(kind))
        if size > KINDS_BYTES_MAX or len(kept) == NODE_KINDS_MAX:
            break
        if kind != kept[0]:
            kept.append(kind)
    return tuple(kept)
