"""Whom to tell that there is something new to ask for, once an entry has landed."""

from __future__ import annotations

from collections.abc import Iterable

from federation.core.events import TellAgent
from federation.core.records import AnyRecord, IntentSet, Placed, Resized
from federation.core.state import State
from federation.protocol.messages import Doorbell


def doorbells(state: State, records: Iterable[AnyRecord]) -> list[TellAgent]:
    """For the clusters whose desired state the records of an entry changed. `state` is that after it."""
    touched: set[str] = set()
    for record in records:
        match record:
            case Placed(cluster=cluster) | Resized(cluster=cluster):
                touched.add(cluster)
            case IntentSet(uid=uid):
                row = state.group(uid)
                if row is not None and row.home is not None:
                    touched.add(row.home.cluster)
            case _:
                pass
    return [TellAgent(cluster, Doorbell(cluster=cluster, position=state.head)) for cluster in sorted(touched)]
