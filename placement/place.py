"""One group's place, as the engine decides it. Who decides, and how, is `placement.engine`'s."""

from __future__ import annotations

from dataclasses import dataclass, field

from placement.assignment import Assignment
from placement.memory import Choice
from placement.model import ClusterName, GroupUid, Reason
from placement.score import Candidate


@dataclass(frozen=True, slots=True)
class Place:
    """`uid` gets `cluster` for a home, where `assignment` fits in the placer's view."""

    uid: GroupUid
    cluster: ClusterName
    assignment: Assignment
    candidates: tuple[Candidate, ...]  # best first; the first is `cluster`
    refused: tuple[tuple[Reason, int], ...]  # clusters out of the question, counted by reason
    choice: Choice = field(compare=False, repr=False)  # the assignment as rows of the table that it was made on
    spread: GroupUid | None = None  # the first child of the spread group that is divided by this and others
