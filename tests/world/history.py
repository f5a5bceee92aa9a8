"""The checkers' own fold of the journal: who had which home, how it ended, and what is final.

Written against `DESIGN.md` §5 and §11 alone; the product's `State` is not used, so that its bugs are not shared.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import assert_never

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
    ClusterRemoved,
    FenceDone,
    GaveUp,
    IntentSet,
    Placed,
    Quarantined,
    QueueApplied,
    Recovered,
    Recreated,
    Resized,
    Restored,
    Running,
    Sized,
    Submitted,
    SubmittedChild,
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
    last_token: int = 0  # position of its newest
    spread: str = ""  # whose child it is
    children: int = 0  # how many there are
    share: tuple[int, ...] = ()  # of a child, once it has one

    @property
    def known_as(self) -> str:
        """What people act on."""
        return f"{self.uid}~{self.children}" if self.children else self.uid


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
    adopted: bool = False  # after a restore: only its agent's word or `confirm-dead` ends it
    ended_by: str = ""  # kind of record, "" while it is the home
    ended_at: int = 0
    lost_end: str = ""  # how it had ended in what a restore lost
    lost_size: tuple[int, int] | None = None  # pods and GPUs there, until the agent has said which size it has


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
    dead: bool = False  # confirmed, and not admitted since
    homes: set[str] = field(default_factory=set)


def _answers(record: Sized, token: TokenFacts) -> bool:
    """Whether that may be what became of the resize."""
    if record.counts in (token.counts, token.counts_before):
        return True
    sizes = zip(token.counts_before, record.counts, token.counts, strict=True)
    return bool(record.reasons) and all(before <= now <= asked for before, now, asked in sizes)


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
        self.lost_groups: dict[str, GroupFacts] = {}  # what a restore lost, as it was then
        self.lost_tokens: dict[str, TokenFacts] = {}
        self.recovering: set[str] | None = None  # clusters that a restored fleet waits for; None: it does not recover
        self.moves = 0
        self.fences = 0
        self.resizes = 0
        self.restores = 0
        self._lineage = lineage
        self._lineages_before: list[tuple[int, str]] = []  # last position of each that was left by a restore
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

    def restored(self, ends_at: int) -> None:
        """The store is lost; the journal goes on from `ends_at`. Call it before the root has the new lineage."""
        kept = [line for line in self.records if line[0] <= ends_at]
        last = self.records[-1][0] if self.records else 0
        groups, tokens = self.groups, self.tokens
        self._lineages_before.append((last, self._lineage()))
        self.restores += 1
        self.records, self.groups, self.tokens, self.clusters, self.by_request = [], {}, {}, {}, {}
        self.recovering, self.moves, self.fences, self.resizes = None, 0, 0, 0
        for position, record, at_s in kept:
            self.records.append((position, record, at_s))
            self._apply(position, record, at_s)
        self.lost_groups |= {uid: group for uid, group in groups.items() if uid not in self.groups}
        for name, token in tokens.items():
            known = self.tokens.get(name)
            if known is not None:
                known.lost_end = token.ended_by or token.lost_end
                known.lost_size = (token.pods, token.gpus_least)
                self._count(known, self.groups[known.uid])
            else:
                self.lost_tokens[name] = token
        self.recovering = set(self.clusters)

    def is_lost(self, uid: str) -> bool:
        """A restore lost the group, and nobody held it, or nobody has told yet."""
        return uid in self.lost_groups and uid not in self.groups

    def group(self, uid: str) -> GroupFacts | None:
        """Also one that a restore lost."""
        return self.groups.get(uid) or self.lost_groups.get(uid)

    def token(self, name: str) -> TokenFacts | None:
        """Also one that a restore lost."""
        return self.tokens.get(name) or self.lost_tokens.get(name)

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
        """A restored journal goes on far beyond all positions that were lost."""
        before = next((lineage for last, lineage in self._lineages_before if position <= last), None)
        return f"{before or self._lineage()}.{position}"

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
            case Quarantined(uid=uid):
                self._quarantined(uid)
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
            case ClusterRemoved():
                self._removed(record)
            case Restored() | Adopted() | Recreated() | Unheld() | Recovered():
                self._recovery(position, record)

    def _submitted(self, position: int, record: Submitted) -> None:
        uid = self._uid(position)
        if record.request_id and record.request_id in self.by_request:
            other = self.by_request[record.request_id]
            raise ViolationError("S8", f"request {record.request_id} made both {other} and {uid}", (uid, other))
        if record.request_id:
            self.by_request[record.request_id] = uid
        pods = sum(role.count for role in record.roles)
        gpus, counts = tuple(role.gpus for role in record.roles), tuple(role.count for role in record.roles)
        intent = "suspend" if record.suspend else "run"
        self.groups[uid] = GroupFacts(
            uid, record.name, record.request_id, pods, gpus, record.min_count, counts, record.grace_s, intent=intent
        )
        if isinstance(record, SubmittedChild):
            self.groups[uid].spread, self.groups[uid].children = record.child.name, record.child.of

    def _placed(self, position: int, record: Placed) -> None:
        group = self._group(record.uid)
        cluster = self.clusters[record.cluster]
        token = self._uid(position)
        words = (record.uid, token)
        if self.recovering is not None:
            raise ViolationError("S3", f"{record.uid} placed as {token} before all clusters were heard", words)
        if group.home is not None:
            raise ViolationError("S3", f"{record.uid} placed as {token} while {group.home} is its home", words)
        if group.outcome:
            raise ViolationError("S7", f"{record.uid} placed as {token} after it was {group.outcome}", words)
        if cluster.fenced:
            raise ViolationError("S3", f"{record.uid} placed on {record.cluster}, which is not admitted", words)
        counts = record.counts or group.share or group.counts
        if group.spread:
            self._check_apart(group, record.cluster)
            group.share = group.share or counts
        pods, gpus = sum(counts), sum(count * each for count, each in zip(counts, group.gpus, strict=True))
        if not group.min_count <= pods <= group.pods:
            raise ViolationError("S6", f"{record.uid} placed as {token} with {pods} of {group.pods} pods", words)
        self.tokens[token] = TokenFacts(
            token, position, record.uid, record.cluster, record.effective_policy, pods, gpus, gpus, counts, counts
        )
        group.home = token
        group.last_token = position
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
        """The agent has the one size or the other; of pods that were to join, some where it says why not all."""
        token = self._token(record.token, record.uid)
        group = self.groups[record.uid]
        words = (record.uid, record.token)
        if group.home != record.token or record.cluster != token.cluster:
            raise ViolationError("S3", f"{record.token} sized, the home is {group.home}", words)
        unasked = not token.resizing or record.resized_at != token.resized_at
        if token.lost_size is not None:  # it may answer a resize that a restore lost
            self._check_size(record.counts, group, words)
        elif unasked or not _answers(record, token):
            raise ViolationError("S6", f"{record} answers no resize of {token}", words)
        token.counts = token.counts_before = record.counts
        token.resizing, token.lost_size = False, None
        self._count(token, group)

    def _check_size(self, counts: tuple[int, ...], group: GroupFacts, words: tuple[str, ...]) -> None:
        each = len(counts) == len(group.counts) and all(0 <= a <= b for a, b in zip(counts, group.counts, strict=True))
        if not each or not group.min_count <= sum(counts) <= group.pods:
            raise ViolationError("S6", f"{group.uid} is to have {counts} of {group.counts} pods", words)

    def _count(self, token: TokenFacts, group: GroupFacts) -> None:
        token.pods = max(sum(token.counts), sum(token.counts_before))
        sure = [min(now, before) for now, before in zip(token.counts, token.counts_before, strict=True)]
        token.gpus = sum(count * each for count, each in zip(sure, group.gpus, strict=True))
        if token.lost_size is not None:
            token.pods, token.gpus = max(token.pods, token.lost_size[0]), min(token.gpus, token.lost_size[1])
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

    def _quarantined(self, uid: str) -> None:
        """As if somebody had suspended it: only a group that waits can be."""
        group = self._group(uid)
        if group.home is not None or group.outcome or group.intent != "run":
            raise ViolationError("S7", f"{uid} quarantined, which is {group}", (uid,))
        group.intent = "suspend"

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
            if self.tokens[name].policy == "MoveAnyway" and not self.tokens[name].adopted:
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
            movable = (token.policy == "StopAndMove" or not token.bound_landed) and not token.adopted
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
            and not self.tokens[name].adopted
        ]
        if left:
            raise ViolationError("S3", f"{record.cluster} admitted before its last FenceDone: {left}", tuple(left))
        cluster.fenced = cluster.dead = False
        cluster.admitted_at, cluster.admitted_epoch = position, record.epoch

    def _confirmed_dead(self, position: int, record: ClusterConfirmedDead) -> None:
        if not record.actor or not record.reason:
            raise ViolationError("S3", f"{record.cluster} confirmed dead without actor or reason")
        cluster = self.clusters[record.cluster]
        if not cluster.fenced:
            raise ViolationError("S3", f"{record.cluster} confirmed dead while it is admitted")
        if self.recovering is not None:
            self.recovering.discard(record.cluster)
        cluster.dead = True
        for name in sorted(cluster.homes):
            self._end(self.tokens[name], "ClusterConfirmedDead", position)

    def _removed(self, record: ClusterRemoved) -> None:
        """Nothing of ours may run there: it was never admitted, or somebody has vouched for that."""
        cluster = self.clusters.pop(record.cluster)
        if cluster.homes or (cluster.admitted_epoch and not cluster.dead):
            raise ViolationError("S3", f"{record.cluster} removed with {sorted(cluster.homes)} or not confirmed dead")

    # --- after a restore ---

    def _recovery(self, position: int, record: Restored | Adopted | Recreated | Unheld | Recovered) -> None:
        if self.recovering is None:
            raise ViolationError("S12", f"{type(record).__name__} at {position}: nobody restored this journal", ())
        match record:
            case Restored():
                if record.lineage != self._lineage():
                    raise ViolationError("S12", f"restored as {record.lineage}, the root says {self._lineage()}", ())
            case Unheld():
                self._unheld(position, record)
            case Adopted():
                self._adopted(record)
            case Recreated():
                self._recreated(record)
            case Recovered():
                self._recovered(position, record)
            case _:
                assert_never(record)

    def _unheld(self, position: int, record: Unheld) -> None:
        token = self._token(record.token, record.uid)
        if self.groups[record.uid].home != record.token:
            raise ViolationError("S3", f"{record.token} of {record.uid} is not its home", (record.uid, record.token))
        self._end(token, "Unheld", position)

    def _adopted(self, record: Adopted) -> None:
        group = self._group(record.uid)
        if group.outcome:
            raise ViolationError("S7", f"{record.uid} is taken up again after it was {group.outcome}", (record.uid,))
        if group.home is None:
            self._take_up(group, record.token, record.cluster)
            self.tokens[record.token].adopted = True
        elif group.home != record.token:
            raise ViolationError("S3", f"{record.token} is taken up while {group.home} is the home", (record.uid,))
        self.tokens[record.token].bound_landed = True  # a home that the backup knew keeps its policy

    def _check_apart(self, group: GroupFacts, cluster: str) -> None:
        """No two children of a spread group are at home in one cluster."""
        for other in self.groups.values():
            home = self.tokens[other.home] if other.home else None
            if other.spread == group.spread and other is not group and home is not None and home.cluster == cluster:
                raise ViolationError(
                    "S1", f"{group.uid} placed on {cluster} beside {other.uid}", (group.uid, other.uid)
                )

    def _recreated(self, record: Recreated) -> None:
        """It must be the group that was lost, not one like it."""
        lost, made = self.lost_groups.get(record.uid), record.submitted
        if lost is None or record.uid in self.groups:
            raise ViolationError("S9", f"{record.uid} is made again and was not lost", (record.uid,))
        counts = tuple(role.count for role in made.roles)
        again = (made.name, made.request_id, counts, made.min_count, made.grace_s)
        if again != (lost.name, lost.request_id, lost.counts, lost.min_count, lost.grace_s):
            raise ViolationError("S7", f"{record.uid} is made again as {again}, it was {lost}", (record.uid,))
        other = self.by_request.setdefault(made.request_id, record.uid) if made.request_id else record.uid
        if other != record.uid:
            raise ViolationError("S8", f"{record.uid} is made again for a request of {other}", (record.uid, other))
        self.groups[record.uid] = group = replace(lost, intent="run", home=None, outcome="", last_token=0, share=())
        self._take_up(group, record.token, record.cluster)
        self.tokens[record.token].adopted = self.tokens[record.token].bound_landed = True

    def _take_up(self, group: GroupFacts, name: str, cluster: str) -> None:
        """What a cluster holds is the home again."""
        words, token = (group.uid, name), self.token(name)
        if token is None or token.uid != group.uid or token.cluster != cluster:
            raise ViolationError("S3", f"{name} of {group.uid} is taken up, which was never placed on {cluster}", words)
        if token.position <= group.last_token:
            raise ViolationError("S2", f"{name} of {group.uid} is taken up after token {group.last_token}", words)
        ended = token.ended_by or token.lost_end
        self.tokens[name] = taken = replace(token, ended_by="", ended_at=0, lost_end=ended, resizing=False)
        taken.lost_size = (token.pods, token.gpus_least)
        group.home, group.last_token = name, token.position
        self.clusters[cluster].homes.add(name)

    def _recovered(self, position: int, record: Recovered) -> None:
        if set(record.epochs) != self.recovering:
            heard, waited = sorted(record.epochs), sorted(self.recovering or ())
            raise ViolationError("S3", f"recovered by the word of {heard}; who had to be heard: {waited}", ())
        for name, epoch in record.epochs.items():
            cluster = self.clusters[name]
            cluster.fenced = False
            cluster.fenced_epoch = cluster.admitted_epoch = epoch
            cluster.admitted_at = position
        self.recovering = None

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
