"""The checkers' own fold of the journal: who had which home, how it ended, and what is final.

Written against `DESIGN.md` §5 and §11 alone; the product's `State` is not used, so that its bugs are not shared.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field

from federation.core.records import (
    Adopted,
    AnyRecord,
    Archived,
    Bound,
    ClusterAdmitted,
    ClusterConfirmedDead,
    ClusterCordoned,
    ClusterFenced,
    ClusterJoined,
    FenceDone,
    GaveUp,
    IntentSet,
    Placed,
    QueueApplied,
    Recovered,
    Recreated,
    Resized,
    Restored,
    Running,
    Sized,
    Submitted,
    Unheld,
)
from tests.world.violation import ViolationError


@dataclass(slots=True)
class GroupFacts:
    uid: str
    name: str
    request_id: str
    pods: int
    gpus: tuple[int, ...]  # by role, of one pod
    min_count: int
    counts: tuple[int, ...]  # pods by role
    grace_s: int
    intent: str = "run"
    home: str | None = None  # token
    outcome: str = ""  # Succeeded | Failed | Cancelled: final
    moves: int = 0


@dataclass(slots=True)
class TokenFacts:
    """One placement, from its `Placed` to what ended it."""

    token: str
    position: int
    uid: str
    cluster: str
    policy: str  # effective
    pods: int  # the most that it may have bound now
    gpus: int  # of as many as its agent has surely taken nodes for
    gpus_least: int = 0  # of the fewest that it ever had
    counts: tuple[int, ...] = ()  # that the journal says it has, or is to have
    counts_before: tuple[int, ...] = ()  # until its agent has answered the last resize
    resized_at: int = 0
    resizing: bool = False
    bound_landed: bool = False
    ended_by: str = ""  # kind of record, "" while it is the home
    ended_at: int = 0


@dataclass(slots=True)
class ClusterFacts:
    name: str
    fenced_epoch: int = 0
    fenced_at: int = 0  # position
    fenced_at_s: float = 0.0
    fenced: bool = True  # a cluster begins unadmitted
    admitted_at: int = 0
    admitted_epoch: int = 0
    cordoned: bool = False
    homes: set[str] = field(default_factory=set)


class History:
    """S2, S3, S7 (final states), S8 and S9 over the committed records, in order."""

    def __init__(
        self,
        lineage: Callable[[], str],
        fence_wait_s: Callable[[float], float],
        never_fenced: frozenset[str] = frozenset(),
    ) -> None:
        """`never_fenced`: clusters without guard where no home ends by a fence."""
        self.records: list[tuple[int, AnyRecord, float]] = []
        self.groups: dict[str, GroupFacts] = {}
        self.tokens: dict[str, TokenFacts] = {}
        self.clusters: dict[str, ClusterFacts] = {}
        self.by_request: dict[str, str] = {}
        self.moves = 0
        self.fences = 0
        self.resizes = 0
        self._lineage = lineage
        self._fence_wait_s = fence_wait_s
        self._never_fenced = never_fenced

    def folded(self, index: int, position: int, record: AnyRecord, now_s: float, server: str) -> None:
        """One replica folded its `index`-th record: S9 wants all replicas to see one sequence."""
        if index < len(self.records):
            at, known, _ = self.records[index]
            if at != position or known != record:
                raise ViolationError("S9", f"{server} folded {record} at {position}; another folded {known} at {at}")
            return
        if self.records and position <= self.records[-1][0]:
            raise ViolationError("S9", f"{server} folded position {position} after {self.records[-1][0]}")
        self.records.append((position, record, now_s))
        self._apply(position, record, now_s)

    def count_to(self, position: int) -> int:
        """How many records lie up to there."""
        return bisect_right(self.records, position, key=lambda one: one[0])

    def home(self, uid: str) -> TokenFacts | None:
        group = self.groups[uid]
        return self.tokens[group.home] if group.home else None

    def story(self, uid: str) -> list[str]:
        """All records of one group, for people."""
        lines = []
        for position, record, at_s in self.records:
            if getattr(record, "uid", None) == uid or self._uid(position) == uid:
                shown = record if not isinstance(record, Submitted) else f"Submitted(name={record.name!r})"
                lines.append(f"{at_s:10.3f}  {position}  {shown}")
        return lines

    def _uid(self, position: int) -> str:
        return f"{self._lineage()}.{position}"

    def _apply(self, position: int, record: AnyRecord, now_s: float) -> None:  # noqa: PLR0912  one arm per kind
        match record:
            case Submitted():
                self._submitted(position, record)
            case Placed():
                self._placed(position, record)
            case Bound() | Running():
                token = self._token(record.token, record.uid)
                if isinstance(record, Bound) and not token.ended_by:
                    token.bound_landed = True
            case GaveUp():
                self._gave_up(position, record)
            case IntentSet(uid=uid, intent=intent):
                self._intent(uid, intent)
            case Resized():
                self._resized(position, record)
            case Sized():
                self._sized(record)
            case QueueApplied() | Archived():
                pass
            case ClusterJoined(cluster=name):
                self.clusters.setdefault(name, ClusterFacts(name))
            case ClusterCordoned(cluster=name, cordoned=cordoned):
                self.clusters[name].cordoned = cordoned
            case ClusterFenced():
                self._fenced(position, record, now_s)
            case FenceDone():
                self._fence_done(position, record, now_s)
            case ClusterAdmitted():
                self._admitted(position, record)
            case ClusterConfirmedDead():
                self._confirmed_dead(position, record)
            case Restored() | Adopted() | Recreated() | Unheld() | Recovered():
                raise ViolationError("S12", f"{type(record).__name__} at {position}: nobody restored this journal", ())

    def _submitted(self, position: int, record: Submitted) -> None:
        uid = self._uid(position)
        if record.request_id and record.request_id in self.by_request:
            other = self.by_request[record.request_id]
            raise ViolationError("S8", f"request {record.request_id} made both {other} and {uid}", (uid, other))
        self.by_request[record.request_id] = uid
        pods = sum(role.count for role in record.roles)
        gpus, counts = tuple(role.gpus for role in record.roles), tuple(role.count for role in record.roles)
        intent = "suspend" if record.suspend else "run"
        self.groups[uid] = GroupFacts(
            uid, record.name, record.request_id, pods, gpus, record.min_count, counts, record.grace_s, intent=intent
        )

    def _placed(self, position: int, record: Placed) -> None:
        group = self._group(record.uid)
        cluster = self.clusters[record.cluster]
        token = f"{self._lineage()}.{position}"
        words = (record.uid, token)
        if group.home is not None:
            raise ViolationError("S3", f"{record.uid} placed as {token} while {group.home} is its home", words)
        if group.outcome:
            raise ViolationError("S7", f"{record.uid} placed as {token} after it was {group.outcome}", words)
        if cluster.fenced:
            raise ViolationError("S3", f"{record.uid} placed on {record.cluster}, which is not admitted", words)
        counts = record.counts or group.counts
        pods, gpus = sum(counts), sum(count * each for count, each in zip(counts, group.gpus, strict=True))
        if not group.min_count <= pods <= group.pods:
            raise ViolationError("S6", f"{record.uid} placed as {token} with {pods} of {group.pods} pods", words)
        self.tokens[token] = TokenFacts(
            token, position, record.uid, record.cluster, record.effective_policy, pods, gpus, gpus, counts, counts
        )
        group.home = token
        group.moves += 1
        cluster.homes.add(token)

    def _resized(self, position: int, record: Resized) -> None:
        """A home that is bound and wanted to run is asked for another size; until it answers it may have either."""
        token = self._token(record.token, record.uid)
        group = self.groups[record.uid]
        words = (record.uid, record.token)
        if group.home != record.token or record.cluster != token.cluster or self.clusters[token.cluster].fenced:
            raise ViolationError("S3", f"{record.token} resized at {position}, the home is {group.home}", words)
        if not token.bound_landed or group.intent != "run" or token.resizing:
            raise ViolationError("S6", f"{record.token} resized at {position}, while {token} of {group.intent}", words)
        self._check_size(record.counts, group, words)
        token.counts_before, token.counts = token.counts, record.counts
        token.resized_at, token.resizing = position, True
        self.resizes += 1
        self._count(token, group)

    def _sized(self, record: Sized) -> None:
        """The agent has the one size or the other."""
        token = self._token(record.token, record.uid)
        group = self.groups[record.uid]
        words = (record.uid, record.token)
        if group.home != record.token or record.cluster != token.cluster:
            raise ViolationError("S3", f"{record.token} sized, the home is {group.home}", words)
        asked = not token.resizing or record.resized_at != token.resized_at
        if asked or record.counts not in (token.counts, token.counts_before):
            raise ViolationError("S6", f"{record} answers no resize of {token}", words)
        token.counts = token.counts_before = record.counts
        token.resizing = False
        self._count(token, group)

    def _check_size(self, counts: tuple[int, ...], group: GroupFacts, words: tuple[str, ...]) -> None:
        each = len(counts) == len(group.counts) and all(0 <= a <= b for a, b in zip(counts, group.counts, strict=True))
        if not each or not group.min_count <= sum(counts) <= group.pods:
            raise ViolationError("S6", f"{group.uid} is to have {counts} of {group.counts} pods", words)

    def _count(self, token: TokenFacts, group: GroupFacts) -> None:
        token.pods = max(sum(token.counts), sum(token.counts_before))
        sure = [min(now, before) for now, before in zip(token.counts, token.counts_before, strict=True)]
        token.gpus = sum(count * each for count, each in zip(sure, group.gpus, strict=True))
        token.gpus_least = min(token.gpus_least, token.gpus)

    def gpus_by(self, token: str, position: int) -> int:
        """How many GPUs a report up to this position shows as taken for it, at least."""
        facts = self.tokens[token]
        return facts.gpus if facts.resized_at <= position else facts.gpus_least

    def _gave_up(self, position: int, record: GaveUp) -> None:
        token = self._token(record.token, record.uid)
        group = self.groups[record.uid]
        words = (record.uid, record.token)
        if record.late:
            if group.home == record.token:
                raise ViolationError("S3", f"late verdict of {record.token}, which is still the home", words)
            return
        if group.home != record.token or record.cluster != token.cluster:
            raise ViolationError("S3", f"{record.verdict} of {record.token} ended the home {group.home}", words)
        self._end(token, f"GaveUp({record.verdict})", position)
        if record.verdict == "Finished":
            group.outcome = "Succeeded" if record.succeeded else "Failed"

    def _end(self, token: TokenFacts, by: str, position: int) -> None:
        group = self.groups[token.uid]
        assert group.home == token.token
        group.home = None
        token.ended_by = by
        token.ended_at = position
        self.clusters[token.cluster].homes.discard(token.token)
        if group.intent == "cancel":
            group.outcome = "Cancelled"
        if group.intent == "move":
            group.intent = "run"

    def _intent(self, uid: str, intent: str) -> None:
        group = self._group(uid)
        if group.outcome:
            raise ViolationError("S7", f"intent {intent} of {uid} after it was {group.outcome}", (uid,))
        group.intent = intent
        if intent == "cancel" and group.home is None:
            group.outcome = "Cancelled"

    def _fenced(self, position: int, record: ClusterFenced, now_s: float) -> None:
        cluster = self.clusters[record.cluster]
        if record.epoch <= cluster.fenced_epoch:
            raise ViolationError(
                "S3", f"{record.cluster} fenced with epoch {record.epoch} after {cluster.fenced_epoch}"
            )
        cluster.fenced = True
        cluster.fenced_epoch, cluster.fenced_at, cluster.fenced_at_s = record.epoch, position, now_s
        if cluster.admitted_at:
            self.fences += 1
        for name in sorted(cluster.homes):
            if self.tokens[name].policy == "MoveAnyway":
                self._end(self.tokens[name], "ClusterFenced", position)
                self.moves += 1

    def _fence_done(self, position: int, record: FenceDone, now_s: float) -> None:
        cluster = self.clusters[record.cluster]
        if not cluster.fenced or record.epoch != cluster.fenced_epoch:
            raise ViolationError(
                "S3", f"FenceDone of {record.cluster} epoch {record.epoch}, fenced {cluster.fenced_epoch}"
            )
        # Both times are those of the first fold by anyone. The clock that measured K may run 2 % fast (A1), and the
        # FenceDone may have been written at once while the ClusterFenced was seen late by us, never the reverse.
        waited_s = now_s - cluster.fenced_at_s
        if waited_s < 0.98 * self._fence_wait_s(record.grace_s):
            raise ViolationError(
                "S3", f"FenceDone of {record.cluster} for grace {record.grace_s} after only {waited_s:.1f} s"
            )
        for name in sorted(cluster.homes):
            token = self.tokens[name]
            movable = token.policy == "StopAndMove" or not token.bound_landed
            if movable and self.groups[token.uid].grace_s <= record.grace_s:
                self._end(token, "FenceDone", position)
                self.moves += 1

    def _admitted(self, position: int, record: ClusterAdmitted) -> None:
        cluster = self.clusters[record.cluster]
        if not cluster.fenced:
            raise ViolationError("S3", f"{record.cluster} admitted twice, epoch {record.epoch}")
        if record.epoch < cluster.fenced_epoch:
            raise ViolationError("S3", f"{record.cluster} admitted with epoch {record.epoch} < {cluster.fenced_epoch}")
        left = [
            name
            for name in sorted(cluster.homes)
            if cluster.fenced_epoch
            and record.cluster not in self._never_fenced
            and self.tokens[name].position < cluster.fenced_at
            and (self.tokens[name].policy == "StopAndMove" or not self.tokens[name].bound_landed)
        ]
        if left:
            raise ViolationError("S3", f"{record.cluster} admitted before its last FenceDone: {left}", tuple(left))
        cluster.fenced = False
        cluster.admitted_at, cluster.admitted_epoch = position, record.epoch

    def _confirmed_dead(self, position: int, record: ClusterConfirmedDead) -> None:
        if not record.actor or not record.reason:
            raise ViolationError("S3", f"{record.cluster} confirmed dead without actor or reason")
        cluster = self.clusters[record.cluster]
        if not cluster.fenced:
            raise ViolationError("S3", f"{record.cluster} confirmed dead while it is admitted")
        for name in sorted(cluster.homes):
            self._end(self.tokens[name], "ClusterConfirmedDead", position)

    def _group(self, uid: str) -> GroupFacts:
        group = self.groups.get(uid)
        if group is None:
            raise ViolationError("S9", f"record of group {uid}, which was never submitted", (uid,))
        return group

    def _token(self, name: str, uid: str) -> TokenFacts:
        token = self.tokens.get(name)
        if token is None or token.uid != uid:
            raise ViolationError("S3", f"record of token {name} of {uid}, which was never placed", (uid, name))
        return token
