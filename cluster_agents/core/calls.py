"""Requests to the cluster's API server on their way: queue, budget, time-outs, and which gang waits for which answer.

Writes that start something leave only before the deadline and carry a time-out no longer than what remains of it.
What is asked for, and what an answer means, is decided by the owners.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from enum import Enum, StrEnum, auto, unique
from typing import Final

from cluster_agents.core.config import (
    ANSWER_SLACK_S,
    CALL_TIMEOUT_S,
    OTHERS_IN_FLIGHT_MAX,
    STARTS_IN_FLIGHT_MAX,
    AgentConfig,
)
from cluster_agents.core.events import CallKube, KubeObject, WriteClass
from cluster_agents.core.objects import mapping, text

# Owners that are no gang (a gang's calls are owned by its token, which has a dot).
AGENT: Final = "agent"
REPLICA: Final = "replica"
LEDGER: Final = "ledger"
TAKEOVER: Final = "takeover"
EVERYTHING_WAITS: Final = frozenset({AGENT, REPLICA, LEDGER, TAKEOVER})  # for what these ask for

NO_TIME_S: Final = 0.001  # less than this before the deadline is nothing

# What API servers ask for with a 429 (priority and fairness: `Retry-After: 1`), where they ask for anything.
THROTTLED_S: Final = 1.0
THROTTLED_S_MAX: Final = 10.0  # whatever one says: the bind deadline goes on

BEGUN_S: Final = 10.0
"""A gang begins only while what the begun ones have yet to ask for takes no longer than this by the budget: a burst of
a thousand that all begin at once would all be late, be undone, and begin anew for ever."""

FOLLOWING_MAX: Final = 128  # that one gang counts for, as many as it has queued at a time: a large one stops nobody


DEBT_S: Final = 55.0
"""What undoes does not wait for the budget; beyond it, it is owed, and half of the budget pays for it while the other
half starts others. Never more than this at full pace is owed, so that whoever begins meanwhile is whole in time."""


@unique
class Step(StrEnum):
    """What a request is for; the owner reads its answer by it."""

    IDENTITY = "identity"
    NAMESPACE = "namespace"
    LEASE_READ = "lease-read"
    LEASE_WRITE = "lease-write"
    LEDGER_READ = "ledger-read"
    LEDGER_WRITE = "ledger-write"
    LIST = "list"
    CONFIRM_GONE = "confirm-gone"
    WRITE_INTENT = "write-intent"
    READ_INTENT = "read-intent"
    REPLACE_INTENT = "replace-intent"
    MARK_BOUND = "mark-bound"
    LABEL_INTENT = "label-intent"
    CREATE_SERVICE = "create-service"
    READ_SERVICE = "read-service"
    CREATE_JOB = "create-job"
    READ_JOB = "read-job"
    TRY_POD = "try-pod"
    SUSPEND_JOB = "suspend-job"
    CREATE_POD = "create-pod"
    READ_POD = "read-pod"
    BIND_POD = "bind-pod"
    DELETE_POD = "delete-pod"
    FREE_POD = "free-pod"
    DELETE_INTENT = "delete-intent"
    DELETE_SERVICE = "delete-service"
    DELETE_JOB = "delete-job"


POD_STEPS: Final = frozenset({Step.CREATE_POD, Step.READ_POD, Step.DELETE_POD, Step.FREE_POD, Step.CONFIRM_GONE})
POD_ABSENT_STEPS: Final = frozenset({Step.READ_POD, Step.DELETE_POD, Step.FREE_POD, Step.CONFIRM_GONE})
INTENT_STEPS: Final = frozenset(
    {Step.WRITE_INTENT, Step.READ_INTENT, Step.REPLACE_INTENT, Step.MARK_BOUND, Step.LABEL_INTENT}
)
JOB_STEPS: Final = frozenset({Step.CREATE_JOB, Step.READ_JOB, Step.SUSPEND_JOB})


@unique
class Outcome(Enum):
    """The answers of an API server, by what they mean for the next step."""

    DONE = auto()
    CONFLICT = auto()  # 409: exists already, is bound already, or another version
    MISSING = auto()  # 404
    REFUSED = auto()  # other 4xx: the same request will be refused again
    BUSY = auto()  # 401 and 5xx: not carried out, try again (a credential is renewed in a moment)
    THROTTLED = auto()  # 429: not carried out, since the server has more to do than it can: see `Calls.throttled`
    UNKNOWN = auto()  # no answer: it may have been carried out, read back first


def outcome(status: int) -> Outcome:
    """What an HTTP status (0: none came) means."""
    match status:
        case 0 | 408 | 504:  # a gateway's or server's time-out tells nothing about the write
            return Outcome.UNKNOWN
        case 404 | 410:
            return Outcome.MISSING
        case 409:
            return Outcome.CONFLICT
        case 401:
            return Outcome.BUSY
        case 429:
            return Outcome.THROTTLED
        case _:
            pass
    if 200 <= status < 300:
        return Outcome.DONE
    return Outcome.REFUSED if 400 <= status < 500 else Outcome.BUSY


ANSWERED_WELL: Final = frozenset({Outcome.DONE, Outcome.CONFLICT, Outcome.MISSING})


def unauthorized(message: str) -> bool:
    """Whether a refusal says that the agent may not do such things at all: not the object's fault, and over in a moment
    where an API server has just started and knows no roles yet. (An admission rule names the object instead.)"""
    who, _, what = message.partition(" is forbidden: ")[2].partition(" cannot ")
    return who.startswith("User ") and bool(what)


def by_webhook(message: str) -> bool:
    """Whether an admission webhook says so: of one object, and not of the server, which would do others."""
    return message.startswith('admission webhook "')


@dataclass(frozen=True, slots=True)
class Request:
    """A call before it is sent. `key` tells the owner's calls of one step apart."""

    owner: str
    step: Step
    key: str
    method: str
    path: str
    body: KubeObject | None = None
    write_class: WriteClass = WriteClass.ALWAYS
    query: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"
    followed_by: int = 0  # the first start of a gang: how many more of the same owner there will be at least


@dataclass(frozen=True, slots=True)
class Flight:
    """A call that was sent and not yet answered."""

    request: Request
    sent_at_s: float
    expires_at_s: float


class Calls:
    """All calls of this process that are queued or under way."""

    def __init__(self, config: AgentConfig, *, first_id: int) -> None:
        self._config = config
        self._next_id = first_id
        self._flights: dict[int, Flight] = {}
        self._expiries: list[tuple[float, int]] = []  # heap; entries of answered calls are dropped when met
        self._starts: deque[Request] = deque()
        self._firsts: deque[Request] = deque()  # of gangs that have to wait until others are further on
        self._unsent: set[str] = set()  # owners whose first start was asked for and has not left
        self._following: dict[str, int] = {}  # owner that began -> starts that are yet to come
        self._following_total = 0
        self._binding: dict[str, int] = {}  # owner -> bindings that are yet to come
        self._others: deque[Request] = deque()
        self._busy: dict[tuple[str, Step, str], int] = {}
        self._owed: dict[str, int] = {}  # owner -> starts queued or under way
        self._starts_in_flight = 0
        self._others_in_flight = 0
        self._tokens = float(config.api_burst)
        self._debt = 0.0  # what undid, read or recorded beyond the budget
        self._filled_at_s = 0.0
        self._starts_from_s = 0.0
        self._well_at_s = self._sick_at_s = float("-inf")

    # --- asking -------------------------------------------------------------------------------------------------------

    def want(self, request: Request) -> None:
        """Queue a call unless the same one is queued or under way."""
        key = (request.owner, request.step, request.key)
        if self._busy.get(key):
            return
        self._busy[key] = 1
        if request.write_class is WriteClass.STARTS:
            self._owed[request.owner] = self._owed.get(request.owner, 0) + 1
            self._starts.append(request)
            if request.followed_by:
                self._unsent.add(request.owner)
        else:
            self._others.append(request)

    def busy(self, owner: str, step: Step, key: str = "") -> bool:
        """Is this very call queued or under way?"""
        return (owner, step, key) in self._busy

    def starts_of(self, owner: str) -> int:
        """Writes of this owner that may start something and whose outcome is still open."""
        return self._owed.get(owner, 0)

    def waits_its_turn(self, owner: str, now_s: float) -> bool:
        """Its first start has not left, by our own budget alone: not because the server has too much to do."""
        return owner in self._unsent and now_s >= self._starts_from_s

    def cancel_starts(self, owner: str) -> None:
        """Forget what is queued and would start something; what is under way cannot be called back."""
        self._unsent.discard(owner)
        self.settled(owner)
        self._starts, self._firsts = self._without(owner, self._starts), self._without(owner, self._firsts)

    def settled(self, owner: str) -> None:
        """Nothing that it is yet to start keeps others waiting."""
        self.follows(owner, 0)
        self._binding.pop(owner, None)

    def may_bind(self, owner: str, count: int, within_s: float) -> bool:
        """Whether the budget lets this many bindings leave in time, beside those of gangs that are half bound: two that
        share it might both be late. Then they count; the first may in any case."""
        pending = sum(self._binding.values()) - self._binding.get(owner, 0)
        may = not pending or pending + count <= self._tokens + within_s * self._config.api_per_s
        if may:
            self._binding[owner] = count
        return may

    def _without(self, owner: str, queue: deque[Request]) -> deque[Request]:
        kept: deque[Request] = deque()
        for request in queue:
            if request.owner == owner:
                self._settle(request)
            else:
                kept.append(request)
        return kept

    def follows(self, owner: str, count: int) -> None:
        """So many starts of this owner are yet to come, as far as others have to wait for them."""
        count = min(count, FOLLOWING_MAX)
        self._following_total += count - self._following.pop(owner, 0)
        if count > 0:
            self._following[owner] = count

    def clear(self) -> None:
        """Forget everything, queued and under way (this process no longer acts); answers will be strangers."""
        self._flights.clear()
        self._expiries.clear()
        self._starts.clear()
        self._firsts.clear()
        self._unsent.clear()
        self._following.clear()
        self._following_total = 0
        self._binding.clear()
        self._others.clear()
        self._busy.clear()
        self._owed.clear()
        self._starts_in_flight = self._others_in_flight = 0

    # --- sending ------------------------------------------------------------------------------------------------------

    def send(self, request: Request, now_s: float, timeout_s: float) -> CallKube:
        """Send past queue and budget (the local lease must not wait)."""
        self._busy[(request.owner, request.step, request.key)] = 1
        if request.write_class is WriteClass.STARTS:
            self._owed[request.owner] = self._owed.get(request.owner, 0) + 1
        return self._sent(request, now_s, timeout_s)

    def drain(self, now_s: float, starts_until_s: float | None) -> list[CallKube]:
        """What leaves now: first what undoes, reads or records, then starts within budget and before the deadline."""
        if not self._others and not self._starts and not self._firsts:
            return []
        self._fill(now_s)
        sent: list[CallKube] = []
        while self._others and self._others_in_flight < OTHERS_IN_FLIGHT_MAX:
            sent.append(self._sent(self._others.popleft(), now_s, self._timeout_s()))
        remaining_s = 0.0 if starts_until_s is None or now_s < self._starts_from_s else starts_until_s - now_s
        while (
            remaining_s > NO_TIME_S
            and self._tokens >= 1
            and self._starts_in_flight < STARTS_IN_FLIGHT_MAX
            and (request := self._next_start()) is not None
        ):
            sent.append(self._sent(request, now_s, min(self._timeout_s(), remaining_s)))
        return sent

    def _next_start(self) -> Request | None:
        """In order, but that gangs wait with their first one while those before them have enough to do."""
        may_begin = self._may_begin
        if self._firsts and may_begin:
            return self._firsts.popleft()
        while self._starts:
            request = self._starts.popleft()
            if not request.followed_by or may_begin:
                return request
            self._firsts.append(request)
        return None

    @property
    def _may_begin(self) -> bool:
        return self._following_total <= self._tokens + BEGUN_S * self._per_s

    def _tokens_wanted(self) -> float:
        """How many it takes until the next start may leave; infinitely many where there is none."""
        if self._starts:
            return 1.0
        lacking = self._following_total - BEGUN_S * self._per_s
        return max(1.0, lacking) if self._firsts else float("inf")

    def throttled(self, body: KubeObject, now_s: float) -> None:
        """The server has too much to do: for as long as it says, THROTTLED_S at least, nothing leaves that would start
        something. What undoes, reads or records goes on, with the patience of its owner. A webhook's 429 is its own."""
        if by_webhook(text(body, "message")):
            return
        asked = mapping(body, "details").get("retryAfterSeconds")
        wait_s = asked if isinstance(asked, int | float) else THROTTLED_S
        self._starts_from_s = now_s + min(max(wait_s, THROTTLED_S), THROTTLED_S_MAX)

    def own_answered(self, result: Outcome, now_s: float) -> None:
        """Of what this process asks for itself, its lease first of all: whether the server does its work."""
        if result in ANSWERED_WELL:
            self._well_at_s = now_s
        else:
            self._sick_at_s = now_s

    def well_since(self, since_s: float) -> bool:
        """Since then it did what this process asked of it for itself, every time."""
        return self._sick_at_s <= since_s < self._well_at_s

    def _timeout_s(self) -> float:
        return min(CALL_TIMEOUT_S, self._config.timings.local_lease_s / 2)

    def _sent(self, request: Request, now_s: float, timeout_s: float) -> CallKube:
        call_id = self._next_id
        self._next_id += 1
        if request.write_class is WriteClass.STARTS or self._tokens >= 1:
            self._tokens -= 1
        else:
            self._debt = min(self._debt + 1, self._config.api_burst, DEBT_S * self._config.api_per_s)
        self._starts_in_flight += request.write_class is WriteClass.STARTS
        self._others_in_flight += request.write_class is not WriteClass.STARTS
        self._note_following(request)
        flight = self._flights[call_id] = Flight(request, now_s, now_s + timeout_s + ANSWER_SLACK_S)
        heapq.heappush(self._expiries, (flight.expires_at_s, call_id))
        return CallKube(
            call_id=call_id,
            method=request.method,
            path=request.path,
            body=request.body,
            timeout_s=timeout_s,
            write_class=request.write_class,
            query=request.query,
            content_type=request.content_type,
        )

    def _note_following(self, request: Request) -> None:
        if request.followed_by:
            self._unsent.discard(request.owner)
            self.follows(request.owner, request.followed_by)
        elif request.write_class is WriteClass.STARTS and request.owner in self._following:
            self.follows(request.owner, self._following[request.owner] - 1)
        if request.step is Step.BIND_POD and request.owner in self._binding:
            self._binding[request.owner] -= 1
            if self._binding[request.owner] <= 0:
                del self._binding[request.owner]

    def _fill(self, now_s: float) -> None:
        earned = (now_s - self._filled_at_s) * self._config.api_per_s
        paid = min(self._debt, earned / 2) if self._paying else 0.0
        tokens = self._tokens + earned - paid
        self._tokens = min(float(self._config.api_burst), tokens)
        self._debt = max(0.0, self._debt - paid - (tokens - self._tokens))
        self._filled_at_s = now_s

    @property
    def _paying(self) -> bool:
        """Not while a gang is half bound: its time is short."""
        return self._debt > 0 and not self._binding

    @property
    def _per_s(self) -> float:
        """What of the budget is for starts."""
        return self._config.api_per_s / 2 if self._paying else self._config.api_per_s

    # --- answers ------------------------------------------------------------------------------------------------------

    def answered(self, call_id: int) -> Flight | None:
        """The call that this answers; None for repeats and strangers."""
        flight = self._flights.pop(call_id, None)
        if flight is None:
            return None
        self._starts_in_flight -= flight.request.write_class is WriteClass.STARTS
        self._others_in_flight -= flight.request.write_class is not WriteClass.STARTS
        self._settle(flight.request)
        return flight

    def expired(self, now_s: float) -> list[int]:
        """Calls whose answer got lost on the way: to be taken as unknown."""
        found: list[int] = []
        while self._expiries and self._expiries[0][0] <= now_s:
            call_id = heapq.heappop(self._expiries)[1]
            if call_id in self._flights:
                found.append(call_id)
        return found

    def _first_expiry_s(self) -> float:
        while self._expiries and self._expiries[0][1] not in self._flights:
            heapq.heappop(self._expiries)
        return self._expiries[0][0] if self._expiries else float("inf")

    def _settle(self, request: Request) -> None:
        self._busy.pop((request.owner, request.step, request.key), None)
        if request.write_class is WriteClass.STARTS:
            left = self._owed.get(request.owner, 0) - 1
            assert left >= 0
            if left:
                self._owed[request.owner] = left
            else:
                self._owed.pop(request.owner, None)

    def wake_at_s(self, now_s: float, starts_until_s: float | None, *, may_send: bool) -> float:
        """When the next call may leave (`may_send`: `drain` will be called then) or expires."""
        wake_s = self._first_expiry_s()
        if not may_send or (not self._starts and not self._firsts and not self._others):
            return wake_s
        may_start = starts_until_s is not None and now_s < starts_until_s - NO_TIME_S
        room = self._starts_in_flight < STARTS_IN_FLIGHT_MAX
        tokens = self._tokens_wanted()
        if tokens <= self._config.api_burst and may_start and room:
            in_s = max(0.01, (tokens - self._tokens) / self._per_s, self._starts_from_s - now_s)
            wake_s = min(wake_s, now_s + in_s)
        if self._others and self._others_in_flight < OTHERS_IN_FLIGHT_MAX:
            wake_s = min(wake_s, now_s)
        return wake_s

    def check_invariants(self) -> None:
        """AssertionError unless the counts agree with what is queued and under way."""
        starts = [f.request for f in self._flights.values() if f.request.write_class is WriteClass.STARTS]
        assert self._starts_in_flight == len(starts)
        assert self._starts_in_flight <= STARTS_IN_FLIGHT_MAX
        assert self._others_in_flight == len(self._flights) - len(starts)
        assert sum(self._owed.values()) == len(starts) + len(self._starts) + len(self._firsts)
        assert sum(self._following.values()) == self._following_total
        assert self._tokens >= 0
        assert self._debt >= 0
