"""Whom to tell that there is something new to ask for, once an entry has landed."""

from __future__ import annotations

from federation.core.events import TellAgent
from federation.core.records import IntentSet, Placed, decode_record
from federation.core.state import State
from federation.protocol.messages import Doorbell
from placement.model import Position
from storage.journal import Entry


def doorbells(state: State, entry: Entry) -> list[TellAgent]:
    """For the clusters whose desired state this entry changed. `state` is that after it."""
    touched: set[str] = set()
    for index, data in enumerate(entry.records):
        match decode_record(data, Position(entry.first_position + index)):
            case Placed(cluster=cluster):
                touched.add(cluster)
            case IntentSet(uid=uid):
                row = state.group(uid)
                if row is not None and row.home is not None:
                    touched.add(row.home.cluster)
            case _:
                pass
    return [TellAgent(cluster, Doorbell(cluster=cluster, position=state.head)) for cluster in sorted(touched)]
