"""The one loop around a `Reconciler`: objects, answers and time become events; effects are carried out.

No decision is taken here. Only the failpoints know what an effect means, so that tests can kill the process between
the steps of a binding.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, assert_never

import structlog

from cluster_agents.core.config import KIND_INTENT, LABEL_KIND
from cluster_agents.core.events import (
    AgentEffect,
    AgentEvent,
    AnswerGuard,
    AskServers,
    CallKube,
    GuardAsked,
    KubeAnswered,
    Note,
    SendReport,
    ServerAnswered,
    Shown,
    Started,
    Stop,
    Tick,
    Told,
    WriteClass,
)
from cluster_agents.core.reconcile import Reconciler
from cluster_agents.failpoints import Failpoint, Failpoints
from cluster_agents.servers import Servers
from federation.protocol.messages import Doorbell, GuardAnswer, GuardAsk, ReportWanted, ServerAnswer, Verdict

EVENTS_PER_TURN: Final = 512  # then connections and timers get their turn
TICK_S_MAX: Final = 1.0
GUARD_TIMEOUT_S: Final = 1.0
GUARDS_WAITING_MAX: Final = 10_000  # two asks from every node

log = structlog.get_logger()


class KubeCaller(Protocol):
    """What the loop needs of a transport."""

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Any = (),
        body: Mapping[str, Any] | None = None,
        content_type: str = ...,
        timeout_s: float,
    ) -> tuple[int, Mapping[str, Any]]: ...


class StoppedError(Exception):
    """The core asked this process to end; the message says why."""


@dataclass(slots=True)
class AgentLoop:
    reconciler: Reconciler
    kube: KubeCaller
    failpoints: Failpoints = field(default_factory=Failpoints)
    servers: Servers | None = None
    _events: deque[AgentEvent] = field(default_factory=deque)
    _waiting: asyncio.Future[None] | None = None
    _guards: dict[int, asyncio.Future[GuardAnswer]] = field(default_factory=dict)
    _calls: set[asyncio.Task[None]] = field(default_factory=set)
    _ticket: int = 0

    def feed(self, event: AgentEvent) -> None:
        self._events.append(event)
        self._wake()

    def answered(self, answer: ServerAnswer) -> None:
        self.feed(ServerAnswered(answer))

    def told(self, message: Doorbell | ReportWanted) -> None:
        self.feed(Told(message))

    async def guard(self, ask: GuardAsk) -> GuardAnswer | None:
        """The core's word to a guard, or None when it has none within `GUARD_TIMEOUT_S`."""
        if len(self._guards) >= GUARDS_WAITING_MAX:
            return None
        self._ticket += 1
        ticket = self._ticket
        future: asyncio.Future[GuardAnswer] = asyncio.get_running_loop().create_future()
        self._guards[ticket] = future
        self.feed(GuardAsked(ticket, ask))
        try:
            async with asyncio.timeout(GUARD_TIMEOUT_S):
                return await future
        except TimeoutError:
            return None
        finally:
            self._guards.pop(ticket, None)

    async def run(self) -> None:
        """Until cancelled; StoppedError when the core must not go on."""
        self.feed(Started())
        try:
            while True:
                await self._wait()
                for _ in range(EVENTS_PER_TURN):
                    if not self._events:
                        break
                    for effect in self._handle_next():
                        self._carry_out(effect)
                await asyncio.sleep(0)
        finally:
            for task in list(self._calls):
                task.cancel()
            await asyncio.gather(*self._calls, return_exceptions=True)

    async def _wait(self) -> None:
        if self._events:
            return
        at_s = now_s()
        pause_s = min(TICK_S_MAX, max(0.0, self.reconciler.wake_at_s(at_s) - at_s))
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        timer = loop.call_later(pause_s, self._wake)
        try:
            await self._waiting
        finally:
            timer.cancel()
            self._waiting = None
        if not self._events:
            self._events.append(Tick())

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _handle_next(self) -> list[AgentEffect]:
        """Hand on the next event; of what the API server said, all that came in a row."""
        event = self._events.popleft()
        if not isinstance(event, Shown):
            return self.reconciler.handle(event, now_s())
        shown = [event]
        while self._events and len(shown) < EVENTS_PER_TURN and isinstance(following := self._events[0], Shown):
            shown.append(following)
            self._events.popleft()
        return self.reconciler.handle_shown(shown, now_s())

    def _carry_out(self, effect: AgentEffect) -> None:
        match effect:
            case CallKube():
                if _is_intent(effect):
                    self.failpoints.reach(Failpoint.AGENT_BEFORE_INTENT)
                task = asyncio.ensure_future(self._call(effect))
                self._calls.add(task)
                task.add_done_callback(self._calls.discard)
            case AskServers(ask):
                if isinstance(ask, Verdict):
                    self.failpoints.reach(Failpoint.AGENT_BEFORE_VERDICT)
                if self.servers is not None:
                    self.servers.ask(ask, now_s())
            case SendReport(report):
                if self.servers is not None:
                    self.servers.report(report, now_s())
            case AnswerGuard(ticket, answer):
                future = self._guards.get(ticket)
                if future is not None and not future.done():
                    future.set_result(answer)
            case Note(event, fields):
                log.info(event, **dict(fields))
            case Stop(why):
                raise StoppedError(why)
            case _:
                assert_never(effect)

    async def _call(self, call: CallKube) -> None:
        query = list(call.query)
        if call.write_class is WriteClass.STARTS:  # the server must not start it later than we may
            query.append(("timeout", f"{max(1, int(call.timeout_s * 1_000))}ms"))
        status, body = await self.kube.call(
            call.method,
            call.path,
            query=query,
            body=call.body,
            content_type=call.content_type,
            timeout_s=call.timeout_s,
        )
        if call.method == "POST" and status in {200, 201}:
            if _is_intent(call):
                self.failpoints.reach(Failpoint.AGENT_AFTER_INTENT)
            elif call.path.endswith("/binding"):
                self.failpoints.reach(Failpoint.AGENT_AFTER_BINDING)
        self.feed(KubeAnswered(call.call_id, status, body))


def now_s() -> float:
    """CLOCK_BOOTTIME: goes on while the machine is suspended, so that a deadline passes in its sleep."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _is_intent(call: CallKube) -> bool:
    if call.method != "POST" or not call.path.endswith("/configmaps") or call.body is None:
        return False
    return (call.body["metadata"].get("labels") or {}).get(LABEL_KIND) == KIND_INTENT
