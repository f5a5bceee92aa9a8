"""What the leader makes of an agent's verdict: a record, an answer that needs none, or silence.

A give-up ends the home only if it names the present token. An answer always says from which position on the journal
shows the token's end: the agent will not act on older desired state (the home rule's `ledger.landed`).
"""

from __future__ import annotations

from enum import StrEnum, unique
from typing import Final

from federation.core.records import DETAIL_CHARS_MAX, AnyRecord, Bound, GaveUp, Running, Sized
from federation.core.rows import GiveUp, GroupRow
from federation.core.state import State
from federation.protocol.messages import Verdict, VerdictAnswer
from placement.elastic import with_counts
from placement.model import NOWHERE, Position, Token

BOUND: Final = "Bound"
RUNNING: Final = "Running"
SIZED: Final = "Sized"
_KNOWN: Final = frozenset({BOUND, RUNNING, SIZED, *(verdict.value for verdict in GiveUp)})
REASONS_PER_VERDICT_MAX: Final = 16  # a record stays under 1 KiB ...
REASON_CHARS_MAX: Final = 32  # ... with reasons of stable codes


@unique
class NotTaken(StrEnum):
    """Why a verdict changed nothing and was not acknowledged; stable codes."""

    UNREADABLE = "TokenUnreadable"
    VERDICT_UNKNOWN = "VerdictUnknown"
    HOME_ENDED = "HomeEnded"  # nothing to acknowledge: the agent will see the end in its desired state
    OTHER_CLUSTER = "OtherCluster"
    OLDER_FORMAT = "OlderFormat"  # older servers share the store and would not read it
    SIZE_UNKNOWN = "SizeUnknown"  # the group may not have so many pods


def judge(state: State, verdict: Verdict, *, at_ms: int) -> AnyRecord | VerdictAnswer | None:
    """Judge one verdict on committed state; None when this state cannot know the token yet: the agent asks again.

    The caller has checked that it came with the credential of `verdict.cluster`.
    """
    try:
        token = Token.parse(verdict.token)
    except ValueError:
        return _answer(verdict, why=NotTaken.UNREADABLE)
    if (token.lineage, token.position) > (state.lineage, state.head):
        return None
    if verdict.verdict not in _KNOWN:
        return _answer(verdict, why=NotTaken.VERDICT_UNKNOWN)
    row = state.group(verdict.uid)
    if row is None or row.home is None or row.home.token != token:
        return _of_ended_token(state, row, verdict, at_ms)
    if row.home.cluster != verdict.cluster:
        return _answer(verdict, why=NotTaken.OTHER_CLUSTER)
    return _of_present_token(row, verdict, at_ms)


def _of_present_token(row: GroupRow, verdict: Verdict, at_ms: int) -> AnyRecord | VerdictAnswer:
    match verdict.verdict:
        case "Bound":
            if row.bound_at:
                return _answer(verdict, landed_at=row.bound_at)
            return Bound(
                actor=_actor(verdict),
                at_ms=at_ms,
                uid=verdict.uid,
                token=verdict.token,
                cluster=verdict.cluster,
                pods=verdict.pods,
            )
        case "Running":
            if row.running_at:
                return _answer(verdict, landed_at=row.running_at)
            return Running(
                actor=_actor(verdict),
                at_ms=at_ms,
                uid=verdict.uid,
                token=verdict.token,
                cluster=verdict.cluster,
                pods=verdict.pods,
            )
        case "Sized":
            return _of_size(row, verdict, at_ms)
        case _:
            return _gave_up(verdict, at_ms, late=False)


def _of_size(row: GroupRow, verdict: Verdict, at_ms: int) -> Sized | VerdictAnswer:
    """The outcome of a resize, for good: an agent has it in its intent before it says it. That of an earlier resize
    changes nothing, nor does what the journal knows already."""
    placed = with_counts(row.request, verdict.counts) if verdict.counts else None
    if placed is None or not row.request.elastic or verdict.resized_at < 0:
        return _answer(verdict, why=NotTaken.SIZE_UNKNOWN)
    asked_at = row.sizing.at if row.sizing is not None else NOWHERE
    if verdict.resized_at < asked_at or (not row.resizing and placed == row.placed):
        return _answer(verdict, landed_at=row.changed_at)
    return Sized(
        actor=_actor(verdict),
        at_ms=at_ms,
        uid=verdict.uid,
        token=verdict.token,
        cluster=verdict.cluster,
        counts=verdict.counts,
        resized_at=verdict.resized_at,
        reasons=_reasons(verdict),
        detail=verdict.detail[:DETAIL_CHARS_MAX],
    )


def _of_ended_token(state: State, row: GroupRow | None, verdict: Verdict, at_ms: int) -> AnyRecord | VerdictAnswer:
    """The token is no home any more, or never was one here."""
    if verdict.verdict in {BOUND, RUNNING, SIZED}:
        return _answer(verdict, why=NotTaken.HOME_ENDED)
    cluster = state.cluster(verdict.cluster)
    ended_at = cluster.ended.get(verdict.token) if cluster is not None else None
    if row is not None and ended_at is not None and verdict.verdict == GiveUp.FINISHED and not _heard(row, verdict):
        return _gave_up(verdict, at_ms, late=True)
    return _answer(verdict, landed_at=ended_at or state.head)  # where it ended was pruned: now is late enough


def _heard(row: GroupRow, verdict: Verdict) -> bool:
    """Whether a give-up of this token is on record: a repeat, not news."""
    return any(isinstance(line.record, GaveUp) and line.record.token == verdict.token for line in row.history)


def _gave_up(verdict: Verdict, at_ms: int, *, late: bool) -> GaveUp:
    return GaveUp(
        actor=_actor(verdict),
        at_ms=at_ms,
        uid=verdict.uid,
        token=verdict.token,
        cluster=verdict.cluster,
        verdict=verdict.verdict,
        reasons=_reasons(verdict),
        detail=verdict.detail[:DETAIL_CHARS_MAX],
        succeeded=verdict.succeeded,
        late=late,
    )


def _reasons(verdict: Verdict) -> tuple[str, ...]:
    return tuple(reason[:REASON_CHARS_MAX] for reason in verdict.reasons[:REASONS_PER_VERDICT_MAX])


def _actor(verdict: Verdict) -> str:
    return f"agent:{verdict.cluster}"


def _answer(verdict: Verdict, *, landed_at: Position | int = 0, why: str = "") -> VerdictAnswer:
    return VerdictAnswer(
        ask_id=verdict.ask_id,
        uid=verdict.uid,
        token=verdict.token,
        verdict=verdict.verdict,
        landed_at=landed_at,
        why=why,
        resized_at=verdict.resized_at,
    )


def not_taken(verdict: Verdict, why: NotTaken) -> VerdictAnswer:
    """The answer to a verdict of which nothing is recorded."""
    return _answer(verdict, why=why)


def landed(verdict: Verdict, position: Position) -> VerdictAnswer:
    """The answer once the verdict's record stands at `position`."""
    return _answer(verdict, landed_at=position)
