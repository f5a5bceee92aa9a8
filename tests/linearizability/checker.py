"""Is there one order of all operations on a blob that explains every answer? A Wing-Gong-Lowe search.

Equivalent to trying every order in which no operation comes before one that had returned when it was called, except
that no pair of (operations placed, content reached) is visited twice. Pure.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import assert_never

CONFIGURATIONS_MAX = 500_000  # beyond this a history is too entangled for a verdict: make it shorter


class Kind(enum.Enum):
    CREATE = "create"
    REPLACE = "replace"
    DELETE = "delete"
    GET = "get"


class Answer(enum.Enum):
    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    """May take effect at any time after the call, however late, or never."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One call. Every content is written once only, so that it stands for its version too."""

    client: str
    kind: Kind
    called: int
    returned: int
    answer: Answer
    wrote: str = ""
    expected: str = ""
    read: str | None = None

    @property
    def ends(self) -> float:
        return float("inf") if self.answer is Answer.UNKNOWN else self.returned


class UndecidedError(Exception):
    """The search was too large."""


def is_linearizable(history: Sequence[Operation]) -> bool:
    """Say whether the answers of all operations on one blob, absent at first, can be explained.

    Reads that were not answered must be left out by the caller. Raises UndecidedError beyond CONFIGURATIONS_MAX.
    """
    operations = sorted(history, key=lambda operation: (operation.called, operation.client))
    wanted = sum(1 << i for i, operation in enumerate(operations) if operation.answer is not Answer.UNKNOWN)
    seen: set[tuple[int, str | None]] = set()
    paths: list[Iterator[tuple[int, str | None]]] = [iter([(0, None)])]
    while paths:
        step = next(paths[-1], None)
        if step is None:
            paths.pop()
            continue
        if step in seen:
            continue
        placed, content = step
        if placed & wanted == wanted:
            return True
        seen.add(step)
        if len(seen) > CONFIGURATIONS_MAX:
            raise UndecidedError(f"{len(operations)} operations, {len(seen)} configurations")
        paths.append(_next_steps(operations, placed, content))
    return False


def _next_steps(operations: Sequence[Operation], placed: int, content: str | None) -> Iterator[tuple[int, str | None]]:
    """Place one operation more: any that was called before all unplaced ones had returned."""
    unplaced = [(i, operation) for i, operation in enumerate(operations) if not placed >> i & 1]
    soonest_end = min((operation.ends for _, operation in unplaced), default=float("inf"))
    candidates = [(operation.ends, i, operation) for i, operation in unplaced if operation.called <= soonest_end]
    for _, i, operation in sorted(candidates, key=lambda candidate: candidate[:2]):
        possible, after = _effect(operation, content)
        if possible:
            yield placed | 1 << i, after


def _effect(operation: Operation, content: str | None) -> tuple[bool, str | None]:
    """Whether the operation can have been answered so on this content, and what it left.

    An unknown one that would change nothing need never be placed.
    """
    refused = operation.answer is Answer.REFUSED
    match operation.kind:
        case Kind.GET:
            return operation.read == content, content
        case Kind.CREATE:
            return (content is None) is not refused, content if refused else operation.wrote
        case Kind.REPLACE:
            return (content == operation.expected) is not refused, content if refused else operation.wrote
        case Kind.DELETE:
            return True, None
        case _:
            assert_never(operation.kind)
