"""Reading server-sent events, without a socket: lines in, decisions out, and where to resume.

The connection, its time-outs and pauses are the clients' business.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from muster.errors import ProtocolError
from muster.results import Decision

EVENT_LINES_MAX = 1_000  # one event is three lines; more is not our stream


@dataclass(slots=True)
class DecisionStream:
    """Turns the lines of one watch into decisions. `last_id` survives reconnections: pass it as Last-Event-ID."""

    last_id: str = ""
    _id: str = ""
    _data: list[str] = field(default_factory=list)

    def connected(self) -> None:
        """A new connection: what was half received is forgotten, the server sends it again."""
        self._id = ""
        self._data.clear()

    def feed(self, line: str) -> Decision | None:
        """Take one line without its end; the decision it completes, if any."""
        if line == "":
            return self._complete()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            self._id = value
        elif name == "data":
            self._data.append(value)
            if len(self._data) > EVENT_LINES_MAX:
                raise ProtocolError("UnexpectedAnswer", f"an event of more than {EVENT_LINES_MAX} lines")
        return None  # `event` repeats the decision's kind; comments keep the connection open

    def _complete(self) -> Decision | None:
        data, event_id = "\n".join(self._data), self._id
        self.connected()
        if not data:
            return None
        try:
            decision = msgspec.json.decode(data, type=Decision)
        except msgspec.MsgspecError as error:
            raise ProtocolError("UnexpectedAnswer", f"watch event {event_id}: {error}") from error
        self.last_id = event_id or str(decision.position)
        return decision
