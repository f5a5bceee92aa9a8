"""One member cluster of a benchmark: what an agent would say to the servers, from an array of nodes and nothing else.

It chooses nodes as agents do (`placement.assign` on its own table), reports what changed, renews its lease and gives
up what has finished. Nothing is bound anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from federation.protocol.lease import AgentLease
from federation.protocol.messages import NodeRows, Renewal, RenewalAnswer, Report, Stamp, Verdict
from placement.assign import assign
from placement.assignment import Assignment
from placement.fleet import NodeRow, NodeTable
from placement.model import GangRequest
from placement.node_order import LearntWorth


class Member:
    """`refused_count` counts placements for which the member itself found no room."""

    def __init__(self, name: str, rows: Sequence[NodeRow], *, ttl_s: float, now_s: float) -> None:
        self.name = name
        self.refused_count = 0
        self._table = NodeTable.build(rows)
        self._lease = AgentLease(name, f"uid-{name}", "boot-1", ttl_s, now_s)
        self._held: dict[str, Assignment] = {}  # by token
        self._worth = LearntWorth()
        self._touched: set[int] = set()
        self._applied = 0
        self._seq = 0
        self._ask_id = 0
        self._follows: Stamp | None = None

    # --- groups ---

    def place(self, token: str, position: int, request: GangRequest) -> bool:
        """Decide nodes for a placement, in journal order; False if there is no room."""
        self._applied = max(self._applied, position)
        self._worth.asked(request)
        self._worth.look((self._table,))
        found = assign(self._table, request, self._worth.now)
        if not isinstance(found, Assignment):
            self.refused_count += 1
            return False
        self._table.take(found)
        self._held[token] = found
        self._touch(found)
        return True

    def finish(self, token: str) -> None:
        """All containers of the token have ended."""
        found = self._held.pop(token)
        self._table.give(found)
        self._touch(found)

    def verdict(self, uid: str, token: str, verdict: str) -> Verdict:
        self._ask_id += 1
        return Verdict(ask_id=self._ask_id, cluster=self.name, uid=uid, token=token, verdict=verdict, succeeded=True)

    def _touch(self, assignment: Assignment) -> None:
        at = self._table.layout.row_by_name
        self._touched.update(at[part.node] for part in assignment.parts)

    # --- leases and reports ---

    def renewal(self, now_s: float) -> Renewal:
        self._ask_id += 1
        return self._lease.renew(now_s, nonce=f"{self.name}-{self._ask_id}", ask_id=self._ask_id)

    def answered(self, answer: RenewalAnswer) -> None:
        self._lease.answered(answer)

    def report(self, now_s: float, lineage: str, *, full: bool) -> Report:
        """The next report; a delta holds every row touched since the one before."""
        self._seq += 1
        stamp = Stamp(1, self._seq)
        rows = list(self._table.rows()) if full else self._changed_rows()
        self._touched.clear()
        follows, self._follows = None if full else self._follows, stamp
        live = self._lease.live(now_s)
        return Report(
            cluster=self.name,
            lineage=lineage,
            stamp=stamp,
            follows=follows,
            applied=self._applied,
            epoch=self._lease.epoch,
            live=live,
            fence_strength="guard",
            tokens=None if live else tuple(sorted(self._held)),
            rows=_columns(rows),
        )

    def _changed_rows(self) -> list[NodeRow]:
        return [self._table.row_at(at) for at in sorted(self._touched)]


def _columns(rows: Sequence[NodeRow]) -> NodeRows:
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
        usable=tuple(row.usable for row in rows),
    )
