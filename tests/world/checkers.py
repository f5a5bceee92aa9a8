"""What must hold, judged from outside: kubelets' run logs, API servers' audits, clients' acknowledgements and reports.

Each checker raises `ViolationError` at the first step that breaks its invariant. None reads the product's own state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from federation.protocol.messages import Report
from tests.world.history import History, TokenFacts
from tests.world.violation import ViolationError

CLOCK_SLACK: Final = 1.02  # A1: a limit measured on another clock


# --- S1, S2, S4: kubelets' run logs ----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Container:
    cluster: str
    node: str
    pod_uid: str
    group: str
    token: str
    gpus: tuple[int, ...]


class RunChecker:
    """S1, S2, S4 and S5 (devices) at every container start; costs O(live clusters of the group)."""

    def __init__(self, history: History, node_gpus: Mapping[tuple[str, str], int], unguarded: frozenset[str]) -> None:
        self.starts_count = 0
        self.live: dict[str, dict[str, dict[str, _Container]]] = {}  # group -> token -> pod uid -> container
        self._history = history
        self._node_gpus = node_gpus
        self._unguarded = unguarded
        self._newest: dict[str, int] = {}  # group -> highest token position that ever ran
        self._devices: dict[tuple[str, str], dict[int, str]] = {}

    def started(
        self, cluster: str, node: str, pod_uid: str, group: str, token: str, gpus: tuple[int, ...], now_s: float
    ) -> None:
        """A container began to run."""
        self.starts_count += 1
        self._hold_devices(cluster, node, pod_uid, gpus)
        if not group:
            return  # a pod that is not ours
        facts = self._history.token(token)
        words = (group, token)
        if facts is None or facts.uid != group:
            raise ViolationError("S3", f"{cluster}/{node} runs {token} of {group}, which was never placed", words)
        if facts.cluster != cluster:
            raise ViolationError("S3", f"{cluster}/{node} runs {token}, which was placed on {facts.cluster}", words)
        tokens = self.live.setdefault(group, {})
        for other, containers in tokens.items():
            known = self._history.token(other)
            if other != token and containers and known is not None:
                self._check_pair(known, facts, now_s)
        newest = self._newest.get(group, 0)
        if facts.position < newest and not self.excused(facts):
            raise ViolationError("S2", f"{cluster} starts {token} of {group} after a higher token {newest} ran", words)
        self._newest[group] = max(newest, facts.position)
        tokens.setdefault(token, {})[pod_uid] = _Container(cluster, node, pod_uid, group, token, gpus)

    def ended(self, cluster: str, node: str, pod_uid: str, group: str, token: str) -> None:
        devices = self._devices.get((cluster, node), {})
        for index in [index for index, holder in devices.items() if holder == pod_uid]:
            del devices[index]
        tokens = self.live.get(group, {})
        containers = tokens.get(token, {})
        containers.pop(pod_uid, None)
        if not containers:
            tokens.pop(token, None)

    def live_tokens(self, cluster: str) -> dict[str, set[str]]:
        """Tokens with a live container there, with their pods."""
        found: dict[str, set[str]] = {}
        for tokens in self.live.values():
            for token, containers in tokens.items():
                pods = {uid for uid, container in containers.items() if container.cluster == cluster}
                if pods:
                    found[token] = pods
        return found

    def gpus_used(self, cluster: str, node: str) -> int:
        return len(self._devices.get((cluster, node), {}))

    def _check_pair(self, one: TokenFacts, other: TokenFacts, now_s: float) -> None:
        old, new = sorted((one, other), key=lambda facts: facts.position)
        if self.excused(old):
            return
        raise ViolationError(
            "S1",
            f"{new.uid} runs twice at {now_s:.3f}: {old.token} on {old.cluster} (ended by {old.ended_by or 'nothing'})"
            f" and {new.token} on {new.cluster}",
            (new.uid, old.token, new.token),
        )

    def excused(self, old: TokenFacts) -> bool:
        """`MoveAnyway` may run twice; and without a guard A2 rests on what the operator accepted."""
        if old.policy == "MoveAnyway":
            return True
        return old.cluster in self._unguarded and "FenceDone" in {old.ended_by, old.lost_end}

    def _hold_devices(self, cluster: str, node: str, pod_uid: str, gpus: tuple[int, ...]) -> None:
        devices = self._devices.setdefault((cluster, node), {})
        for index in gpus:
            if index in devices:
                raise ViolationError(
                    "S5", f"{cluster}/{node} GPU {index} is given to {pod_uid} and to {devices[index]}"
                )
            devices[index] = pod_uid
        capacity = self._node_gpus.get((cluster, node), 0)
        if len(devices) > capacity:
            raise ViolationError("S4", f"{cluster}/{node} runs {len(devices)} GPUs of {capacity}")


# --- S4, S6: API servers' audits -------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Gang:
    """The bound pods of one token in one cluster."""

    cluster: str
    token: str
    group: str
    bound: dict[str, str] = field(default_factory=dict)  # pod uid -> node
    partial_since_s: float | None = None
    ran_whole: bool = False


class BoundChecker:
    """S6: a token has 0 or at least `min_count` bound pods, but for T_undo while its cluster works undisturbed, and
    never more than it was placed with, or resized to."""

    def __init__(self, history: History, undo_s: float) -> None:
        self._history = history
        self._undo_s = undo_s
        self._gangs: dict[tuple[str, str], _Gang] = {}
        self._partial: dict[tuple[str, str], _Gang] = {}

    def acted(self, cluster: str, act: str, pod_uid: str, node: str, group: str, token: str, now_s: float) -> None:
        """One step of a pod's life, from the audit log."""
        if not token or act not in {"bound", "removed"}:
            return
        key = (cluster, token)
        gang = self._gangs.get(key)
        if gang is None:
            gang = self._gangs[key] = _Gang(cluster, token, group)
        if act == "bound":
            gang.bound[pod_uid] = node
        else:
            gang.bound.pop(pod_uid, None)
        self._judge(key, gang, now_s)

    def _judge(self, key: tuple[str, str], gang: _Gang, now_s: float) -> None:
        facts = self._history.group(gang.group)
        wanted = facts.min_count if facts else 1
        count = len(gang.bound)
        placed = self._history.token(gang.token)
        if placed is not None and count > placed.pods:
            what = f"{gang.cluster} has {count} pods of {gang.token} bound, which may have {placed.pods}"
            raise ViolationError("S6", what, (gang.group, gang.token))
        if count >= wanted:
            gang.ran_whole = True
        if 0 < count < wanted:
            if gang.partial_since_s is None:
                gang.partial_since_s = now_s
            self._partial[key] = gang
        else:
            gang.partial_since_s = None
            self._partial.pop(key, None)

    def check(self, now_s: float, quiet_since_s: Mapping[str, float], slack_s: float) -> None:
        """`quiet_since_s`: since when nothing disturbs a cluster's agent, API server and kubelets."""
        for gang in self._partial.values():
            assert gang.partial_since_s is not None
            since_s = max(gang.partial_since_s, quiet_since_s[gang.cluster])
            facts = self._history.group(gang.group)
            assert facts is not None
            limit_s = (self._undo_s + (facts.grace_s if gang.ran_whole else 0.0)) * CLOCK_SLACK + slack_s
            if now_s - since_s > limit_s:
                raise ViolationError(
                    "S6",
                    f"{gang.cluster} has {len(gang.bound)} of at least {facts.min_count} pods of {gang.token} bound"
                    f" since {gang.partial_since_s:.1f} (undisturbed since {since_s:.1f}), limit {limit_s:.1f} s",
                    (gang.group, gang.token),
                )


def check_node(cluster: str, node: str, gpus_by_pod: Mapping[str, int], gpus: int, words: tuple[str, ...]) -> None:
    """S4: what our pods bound to a node ask for, as long as they have not ended, fits on it."""
    total = sum(gpus_by_pod.values())
    if total > gpus:
        raise ViolationError("S4", f"pods on {cluster}/{node} ask for {total} GPUs of {gpus}: {gpus_by_pod}", words)


# --- S4: what agents report ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Process:
    """What one agent process has reported and accepted so far."""

    gpus: dict[str, int] = field(default_factory=dict)
    gpus_free: dict[str, int] = field(default_factory=dict)
    accepted: set[str] = field(default_factory=set)
    doubts: list[tuple[frozenset[str], int, int]] = field(default_factory=list)  # homes to show, GPUs taken, applied


DOUBTS_KEPT_MAX: Final = 32


class CapacityChecker:
    """S4: a report shows every home up to its `applied` as taken, or the placer would give that room away again.

    A home that the agent has just refused takes no room, and nobody outside can see that yet: a report that shows too
    little is only a doubt, until the same process accepts the homes it left out.
    """

    def __init__(self, history: History, given_up: Callable[[str], set[str]]) -> None:
        """`given_up`: tokens in a cluster's ledger, whose room is free though their end has not landed."""
        self._history = history
        self._given_up = given_up
        self._processes: dict[str, _Process] = {}

    def reported(self, process: str, report: Report, gpus: int) -> None:
        """An agent made this report; those of one process come in order. `gpus`: of all nodes; 0 if disturbed."""
        facts = self._processes.setdefault(process, _Process())
        if report.follows is None:
            facts.gpus, facts.gpus_free = {}, {}
        for name in report.rows.gone:
            facts.gpus.pop(name, None)
            facts.gpus_free.pop(name, None)
        facts.gpus.update(zip(report.rows.name, report.rows.gpus, strict=True))
        facts.gpus_free.update(zip(report.rows.name, report.rows.gpus_free, strict=True))
        if report.part + 1 < report.parts:
            return  # the others follow
        if self._history.recovering is not None:
            return  # which homes there are is being found out, and nothing is placed
        if not gpus or sum(facts.gpus.values()) != gpus or report.cluster not in self._history.clusters:
            return  # nodes are missing or ill: their pods have ended or will
        taken = gpus - sum(facts.gpus_free.values())
        homes = self._history.clusters[report.cluster].homes
        shown = {token for token in homes if self._history.tokens[token].position <= report.applied}
        if self._gpus_of(shown, report.applied) > taken:
            doubt = (frozenset(shown - self._given_up(report.cluster)), taken, report.applied)
            facts.doubts = [*facts.doubts[-DOUBTS_KEPT_MAX:], doubt]
            self._judge(process, facts, doubt)

    def restored(self) -> None:
        """What was homed where is not known for a while: old doubts mean nothing."""
        for facts in self._processes.values():
            facts.doubts.clear()

    def accepted(self, process: str, token: str) -> None:
        """The agent made the first pod of this token: it had a place for it."""
        facts = self._processes.setdefault(process, _Process())
        if token not in facts.accepted:
            facts.accepted.add(token)
            for doubt in facts.doubts:
                if token in doubt[0]:
                    self._judge(process, facts, doubt)

    def _judge(self, process: str, facts: _Process, doubt: tuple[frozenset[str], int, int]) -> None:
        shown, taken, applied = doubt
        needed = self._gpus_of(shown & facts.accepted, applied)
        if needed > taken:
            why = f"{process} reported {taken} GPUs taken with applied={applied}; homes up to there hold {needed}"
            raise ViolationError("S4", why, tuple(sorted(shown)))

    def _gpus_of(self, tokens: Iterable[str], applied: int) -> int:
        return sum(self._history.gpus_by(token, applied) for token in tokens)


# --- S7, S8: what clients were told ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ack:
    request_id: str
    uid: str
    position: int
    at_s: float
    again: bool = False  # of a group that was made again after a restore: it lies elsewhere in the journal now


class AckChecker:
    """S7 and S8: an acknowledged submission is in the journal, where the answer said, and under one identity."""

    def __init__(self, history: History) -> None:
        self.acks: dict[str, Ack] = {}
        self.lost: dict[str, Ack] = {}  # of groups that a restore lost; some are made again
        self._history = history

    def restored(self) -> None:
        """What was acknowledged after the backup may be lost: only what runs comes back."""
        for request_id in [one for one, ack in self.acks.items() if ack.uid not in self._history.groups]:
            self.lost[request_id] = self.acks.pop(request_id)

    def recovered(self) -> None:
        """What came back is as good as what was never lost."""
        for request_id in [one for one, ack in self.lost.items() if ack.uid in self._history.groups]:
            self.acks[request_id] = replace(self.lost.pop(request_id), again=True)

    def acknowledged(self, request_id: str, uid: str, position: int, now_s: float) -> None:
        """A client was told so; a repeat must be told the same."""
        if self._history.is_lost(uid):
            self.lost.setdefault(request_id, Ack(request_id, uid, position, now_s))  # said before the store was lost
            return
        known = self.acks.get(request_id)
        if known is not None:
            if known.uid != uid or (known.position != position and not known.again):
                raise ViolationError(
                    "S8", f"{request_id} was {known.uid} at {known.position}, now {uid} at {position}", (known.uid, uid)
                )
            return
        self.acks[request_id] = Ack(request_id, uid, position, now_s, again=uid in self._history.lost_groups)
        self._check(self.acks[request_id])

    def check(self) -> None:
        """All that was ever acknowledged is still there."""
        for request_id in sorted(self.acks):
            self._check(self.acks[request_id])

    def _check(self, ack: Ack) -> None:
        group = self._history.groups.get(ack.uid)
        if group is None:
            raise ViolationError(
                "S7", f"{ack.request_id} was acknowledged as {ack.uid}, which no replica folded", (ack.uid,)
            )
        elsewhere = not ack.again and not ack.uid.endswith(f".{ack.position}")
        if group.request_id != ack.request_id or elsewhere:
            raise ViolationError(
                "S7", f"{ack.request_id} was answered with {ack.uid}, that of {group.request_id}", (ack.uid,)
            )


# --- S10: reports ----------------------------------------------------------------------------------------------------

StampPair = tuple[int, int]  # (boot, seq)


VIEWS_KEPT_MAX: Final = 64  # decisions stand on the newest few


@dataclass(slots=True)
class _Views:
    """What one process may hold of one cluster: stamps in the order it took them in, with when and how old."""

    highest: StampPair = (-1, -1)
    used: StampPair = (-1, -1)
    taken: dict[StampPair, tuple[float, float]] = field(default_factory=dict)


class ViewChecker:
    """S10: per server process, which reports it may hold by the rules of `DESIGN.md` §5, and when it got them."""

    def __init__(self, view_stale_s: float) -> None:
        self._view_stale_s = view_stale_s
        self._views: dict[tuple[str, str], _Views] = {}  # (process, cluster)

    def delivered(
        self, process: str, cluster: str, stamp: StampPair, follows: StampPair | None, age_s: float, now_s: float
    ) -> None:
        """A report reached this process; it counts only above all before it, and a delta only on one that counts."""
        views = self._views.setdefault((process, cluster), _Views())
        if stamp <= views.highest:
            return
        views.highest = stamp
        if follows is not None and follows not in views.taken:
            return
        views.taken[stamp] = (now_s, age_s)
        if len(views.taken) > VIEWS_KEPT_MAX:
            del views.taken[next(iter(views.taken))]

    def placed(
        self, process: str, cluster: str, stamp: StampPair | None, decided_at_s: float, words: tuple[str, ...]
    ) -> None:
        """`process` decided a placement on `cluster` then, standing on the report with this stamp."""
        if stamp is None:
            raise ViolationError("S10", f"{process} placed on {cluster} and names no report", words)
        views = self._views.get((process, cluster), _Views())
        taken = views.taken.get(stamp)
        if taken is None or taken[0] > decided_at_s:
            raise ViolationError("S10", f"{process} placed on {cluster} by {stamp}, which it may not hold", words)
        if stamp < views.used:
            raise ViolationError("S10", f"{process} placed on {cluster} by {stamp} after {views.used}", words)
        views.used = stamp
        age_s = decided_at_s - taken[0] + taken[1]
        if age_s > self._view_stale_s * CLOCK_SLACK:
            raise ViolationError("S10", f"{process} placed on {cluster} by a report {age_s:.1f} s old", words)
