"""Relays agents' lease renewals into the store, on any replica: read, compare-and-swap, answer.

Answers only after its swap resolved, never from memory, and never changes a lease's state: who may fence or admit is
`failover`'s. Silence about a renewal is not measured here either.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from federation.core.ids import NewNonce, NewOp
from federation.protocol.lease import RenewalResult, apply_renewal
from federation.protocol.messages import (
    LeaseBody,
    Renewal,
    RenewalAnswer,
    UnreadableMessageError,
    decode_lease,
    encode_lease,
)
from storage.blob import (
    Blob,
    BlobEffect,
    BlobEvent,
    BlobFailed,
    BlobGet,
    BlobName,
    BlobRead,
    BlobReplace,
    BlobWritten,
    OpId,
    Outcome,
)

TRIES_MAX: Final = 3  # the other path's copy of the same renewal is the usual rival; a third rival is no accident
RELAYED_MAX: Final = 4_096  # renewals in hand: four per cluster of the largest fleet


@dataclass(frozen=True, slots=True)
class RelayAnswer:
    ticket: int
    answer: RenewalAnswer


@dataclass(frozen=True, slots=True)
class Sighting:
    """The relay read or wrote a lease: as good a look at it as the observer's own."""

    body: LeaseBody
    version: str
    asked_at_s: float


RelayEffect = BlobEffect | RelayAnswer | Sighting


@dataclass(frozen=True, slots=True)
class _Relayed:
    """A renewal in hand. `written` is the body whose swap is in flight or was not plainly answered."""

    ticket: int
    renewal: Renewal
    name: BlobName
    asked_at_s: float
    tries: int = 1
    written: LeaseBody | None = None


class Relay:
    """Operation ids are unique within the replica; nonces never repeat."""

    def __init__(self, new_op: NewOp, new_nonce: NewNonce) -> None:
        self._new_op = new_op
        self._new_nonce = new_nonce
        self._by_op: dict[OpId, _Relayed] = {}

    def owns(self, op: OpId) -> bool:
        return op in self._by_op

    def ask(self, ticket: int, renewal: Renewal, name: BlobName, now_s: float) -> list[RelayEffect]:
        """Take one renewal; its answer follows. The caller has checked whose credential it came with."""
        if len(self._by_op) >= RELAYED_MAX:
            return [_answer(ticket, renewal, RenewalResult.UNAVAILABLE)]
        return [self._read(_Relayed(ticket, renewal, name, now_s), now_s)]

    def handle(self, event: BlobEvent, now_s: float) -> list[RelayEffect]:
        relayed = self._by_op.pop(event.op)
        match event:
            case BlobRead(blob=blob):
                return self._looked(relayed, blob, now_s)
            case BlobWritten(outcome=outcome, version=version):
                return self._wrote(relayed, outcome, version, now_s)
            case BlobFailed():
                return [_answer(relayed.ticket, relayed.renewal, RenewalResult.UNAVAILABLE)]
            case _:
                raise AssertionError(f"{type(event).__name__} answers no effect of the relay")

    def _looked(self, relayed: _Relayed, blob: Blob | None, now_s: float) -> list[RelayEffect]:
        renewal = relayed.renewal
        try:
            body = decode_lease(blob.data) if blob is not None else None
        except UnreadableMessageError:
            body = None
        if blob is None or body is None:
            return [_answer(relayed.ticket, renewal, RenewalResult.UNAVAILABLE)]
        seen = Sighting(body, blob.version, relayed.asked_at_s)
        applied = apply_renewal(body, renewal, nonce=self._new_nonce())
        if isinstance(applied, RenewalResult):  # also when the swap in doubt was applied after all: `renewed`
            return [seen, _answer(relayed.ticket, renewal, applied, body)]
        if relayed.tries > TRIES_MAX:
            return [seen, _answer(relayed.ticket, renewal, RenewalResult.UNAVAILABLE)]
        op = self._new_op()
        self._by_op[op] = replace(relayed, written=applied, asked_at_s=now_s)
        return [seen, BlobReplace(op, relayed.name, encode_lease(applied), blob.version)]

    def _wrote(self, relayed: _Relayed, outcome: Outcome, version: str | None, now_s: float) -> list[RelayEffect]:
        assert relayed.written is not None
        if outcome is Outcome.DONE:
            answer = _answer(relayed.ticket, relayed.renewal, RenewalResult.RENEWED, relayed.written)
            seen = [Sighting(relayed.written, version, relayed.asked_at_s)] if version is not None else []
            return [*seen, answer]
        return [self._read(replace(relayed, tries=relayed.tries + 1), now_s)]

    def _read(self, relayed: _Relayed, now_s: float) -> BlobEffect:
        op = self._new_op()
        self._by_op[op] = replace(relayed, asked_at_s=now_s)
        return BlobGet(op, relayed.name)


def _answer(ticket: int, renewal: Renewal, result: RenewalResult, body: LeaseBody | None = None) -> RelayAnswer:
    return RelayAnswer(ticket, RenewalAnswer(ask_id=renewal.ask_id, result=result, body=body))
