"""What servers, agents and kubelets have in common as processes: a clock, a wake-up, crashes and pauses."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from tests.world.scheduler import Clock, Scheduler
from tests.world.trace import Trace
from tests.world.violation import ViolationError

TICK_GAP_S: Final = 0.001  # no process runs twice within this without news; keeps a core that spins from stopping time
TICKS_PER_S_MAX: Final = 400  # in one simulated second; a core that wants more is in a loop


class Process:
    """One core in its host. Subclasses say how to start it, when it wants to wake, and what an event does."""

    def __init__(self, name: str, clock: Clock, scheduler: Scheduler, trace: Trace) -> None:
        self.name = name
        self.clock = clock
        self.up = False
        self.paused = False
        self.incarnation = 0
        self.ticks_count = 0
        self.scheduler = scheduler
        self.trace = trace
        self._inbox: deque[Any] = deque()
        self._wake_v: float | None = None
        self._ticks_second = (0, 0)  # a simulated second, and the ticks in it

    # --- for subclasses ---

    def _boot(self) -> None:
        """Make a fresh core and give it its first event."""
        raise NotImplementedError

    def _due_s(self) -> float | None:
        """When the core wants a tick, by its own clock."""
        raise NotImplementedError

    def _step(self, event: Any) -> None:
        """Hand the event to the core and carry out its effects."""
        raise NotImplementedError

    def _tick(self) -> Any:
        raise NotImplementedError

    # --- life ---

    @property
    def local_s(self) -> float:
        return self.clock.local(self.scheduler.now_s)

    def start(self) -> None:
        if self.up:
            return
        self.up = True
        self.paused = False
        self.incarnation += 1
        self._inbox.clear()
        self.trace.note(self.scheduler.now_s, self.name, "start", f"incarnation {self.incarnation}")
        self._boot()
        self._rewake()

    def crash(self) -> None:
        """The process is gone, with all it knew; what it has sent is still under way."""
        self.up = False
        self.paused = False
        self._inbox.clear()
        self.trace.note(self.scheduler.now_s, self.name, "crash")

    def pause(self) -> None:
        """The process stands still: its clock runs, messages pile up."""
        if self.up:
            self.paused = True
            self.trace.note(self.scheduler.now_s, self.name, "pause")

    def resume(self) -> None:
        """Everything that piled up is handled at once, in order."""
        if not self.paused:
            return
        self.paused = False
        self.trace.note(self.scheduler.now_s, self.name, "resume", f"{len(self._inbox)} events")
        while self._inbox and self.up and not self.paused:
            self._handle(self._inbox.popleft())
        self._rewake()

    def deliver(self, incarnation: int, event: Any) -> None:
        """An event for the process that was `incarnation`; 0 means whichever runs now."""
        if not self.up or (incarnation and incarnation != self.incarnation):
            return
        if self.paused:
            self._inbox.append(event)
            return
        self._handle(event)
        self._rewake()

    def deliver_all(self, incarnation: int, events: list[Any]) -> None:
        """Events that arrived together; the process sleeps again after the last one."""
        if not self.up or (incarnation and incarnation != self.incarnation):
            return
        if self.paused:
            self._inbox.extend(events)
            return
        for event in events:
            self._handle(event)
        self._rewake()

    def _handle(self, event: Any) -> None:
        try:
            self._step(event)
        except ViolationError:
            raise
        except Exception as error:
            why = f"{self.name} raised {type(error).__name__}: {error} on {type(event).__name__}"
            raise ViolationError("crash", why, (self.name,)) from error

    # --- wake-ups ---

    def _rewake(self) -> None:
        """Have at most one valid wake-up scheduled, at or before the time the core asks for."""
        if not self.up or self.paused:
            return
        due_s = self._due_s()
        if due_s is None:
            return
        when_v = max(self.clock.virtual(due_s), self.scheduler.now_s)
        if self._wake_v is None or when_v < self._wake_v:
            self._wake_v = when_v
            self.scheduler.at(when_v, self._woken, when_v)

    def _woken(self, when_v: float) -> None:
        if self._wake_v != when_v:
            return  # an earlier wake-up took its place
        self._wake_v = None
        if not self.up or self.paused:
            return
        due_s = self._due_s()
        if due_s is not None and self.local_s >= due_s:
            self._count_tick()
            self._handle(self._tick())
            due_s = self._due_s()
            if due_s is not None and self.clock.virtual(due_s) <= self.scheduler.now_s + TICK_GAP_S:
                self._wake_v = self.scheduler.now_s + TICK_GAP_S
                self.scheduler.at(self._wake_v, self._woken, self._wake_v)
                return
        self._rewake()

    def _count_tick(self) -> None:
        self.ticks_count += 1
        second, ticks = self._ticks_second
        now = int(self.scheduler.now_s)
        self._ticks_second = (now, ticks + 1 if second == now else 1)
        if self._ticks_second[1] > TICKS_PER_S_MAX:
            why = f"{self.name} asked for {TICKS_PER_S_MAX} ticks within one second: it is in a loop"
            raise ViolationError("crash", why, (self.name,))
