"""Answers to "what should run in my cluster?": read off the state, by any replica, as of what it has folded.

An answer may be old: the agent compares its `as_of` with its lease's floor and its ledger. Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final, TypeVar

from federation.core.claims import origin_of
from federation.core.rows import ClusterRow, GroupRow, Intent
from federation.core.state import State
from federation.protocol.messages import (
    DESIRED_GROUPS_PER_ANSWER_MAX,
    LIVE_TOKENS_MAX,
    DesiredAnswer,
    DesiredAsk,
    DesiredGroup,
    SpecAnswer,
    SpecAsk,
)
from placement.elastic import counts_of
from placement.model import GroupUid, Position, Reason

SPEC_BYTES_MAX: Final = 4 * 1024  # of a spec that comes along: most are far smaller, and nobody waits for a large one
SPECS_BYTES_MAX: Final = 64 * 1024  # of all that come along with one answer, with their origins: far below a message's
GROUPS_MAX: Final = LIVE_TOKENS_MAX
"""Of one full answer: an agent keeps no more (DESIGN §15). What was placed beyond waits until others have ended."""
STOP_REASONS: Final[Mapping[Intent, Reason]] = {
    Intent.CANCEL: Reason.CANCELLED,
    Intent.SUSPEND: Reason.SUSPENDED,
    Intent.MOVE: Reason.DRAINED,
}

K = TypeVar("K")


def desired_of(state: State, ask: DesiredAsk) -> tuple[DesiredAnswer, ...]:
    """The answer in one or more parts; none when this replica knows less than the asker, or not the cluster. Of more
    than `GROUPS_MAX` homes the oldest are told.

    O(what changed) for a delta, O(homes there) for a full answer.
    """
    cluster = state.cluster(ask.cluster)
    if cluster is None or ask.lineage > state.lineage:
        return ()
    same_lineage = ask.lineage in {"", state.lineage}
    if same_lineage and ask.since > state.head:
        return ()
    # A cluster that was removed and has joined again no longer has the ends from before.
    told_since = max(cluster.ended_pruned, cluster.joined_at)
    if not same_lineage or ask.since <= 0 or ask.since < told_since:
        return _full(state, cluster, ask)
    changed = _since(cluster.homes, ask.since)
    ended = _since(cluster.ended, ask.since)
    if len(changed) + len(ended) > DESIRED_GROUPS_PER_ANSWER_MAX:
        return _full(state, cluster, ask)
    specs, origins = _specs(state, changed)
    return (
        DesiredAnswer(
            ask_id=ask.ask_id,
            cluster=ask.cluster,
            lineage=state.lineage,
            since=ask.since,
            as_of=state.head,
            full=False,
            groups=tuple(_group(state.groups[uid]) for uid in changed),
            ended=tuple(ended),
            specs=specs,
            origins=origins,
        ),
    )


def spec_of(state: State, ask: SpecAsk) -> SpecAnswer:
    """A group's manifest, for the cluster that is its home; None in it while this replica does not show that."""
    row = state.group(ask.uid)
    at_home = row is not None and row.home is not None and row.home.cluster == ask.cluster
    if row is None or not at_home:
        return SpecAnswer(ask_id=ask.ask_id, uid=ask.uid)
    return SpecAnswer(ask_id=ask.ask_id, uid=ask.uid, spec=state.spec(ask.uid), origin=origin_of(row))


def _full(state: State, cluster: ClusterRow, ask: DesiredAsk) -> tuple[DesiredAnswer, ...]:
    parts = tuple(_parts(list(islice(cluster.tokens.values(), GROUPS_MAX)))) or ((),)
    return tuple(
        DesiredAnswer(
            ask_id=ask.ask_id,
            cluster=ask.cluster,
            lineage=state.lineage,
            since=0,
            as_of=state.head,
            full=True,
            groups=tuple(_group(state.groups[uid]) for uid in uids),
            part=part,
            parts=len(parts),
        )
        for part, uids in enumerate(parts)
    )


def _parts(uids: list[GroupUid]) -> Iterator[tuple[GroupUid, ...]]:
    for start in range(0, len(uids), DESIRED_GROUPS_PER_ANSWER_MAX):
        yield tuple(uids[start : start + DESIRED_GROUPS_PER_ANSWER_MAX])


def _specs(state: State, changed: list[GroupUid]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Small specs of the groups that are to start, and their origins, oldest first, as far as there is room."""
    specs: dict[str, bytes] = {}
    origins: dict[str, bytes] = {}
    room = SPECS_BYTES_MAX
    for uid in changed:
        row = state.groups[uid]
        if row.bound_at > 0 or row.intent is not Intent.RUN:
            continue
        spec = state.spec(uid)
        if spec is None or len(spec) > SPEC_BYTES_MAX or len(spec) > room:
            continue
        origin = origin_of(row)
        if len(spec) + len(origin) <= room:
            specs[uid], origins[uid] = spec, origin
            room -= len(spec) + len(origin)
    return specs, origins


def _since(feed: dict[K, Position], since: int) -> list[K]:
    """Keys of a feed (ordered by position) that changed above `since`, oldest first."""
    newest_first: list[K] = []
    for key in reversed(feed):
        if feed[key] <= since:
            break
        newest_first.append(key)
    newest_first.reverse()
    return newest_first


def _group(row: GroupRow) -> DesiredGroup:
    assert row.home is not None
    assert row.effective_policy is not None
    stop = STOP_REASONS.get(row.intent)
    return DesiredGroup(
        uid=row.uid,
        token=str(row.home.token),
        intent="run" if stop is None else "stop",
        policy=row.effective_policy,
        spec_digest=row.spec_digest,
        bound=row.bound_at > 0,
        stop_reason="" if stop is None else stop.code,
        grace_s=row.grace_s,
        counts=_counts_of(row),
        resized_at=row.sizing.at if row.sizing is not None else 0,
    )


def _counts_of(row: GroupRow) -> tuple[int, ...]:
    """Pods of each role where they are not all; all of them are said where they once were others."""
    if row.sizing is not None:
        return counts_of(row.placed)
    return row.counts if row.child is None or not row.child.share else (row.child.share,)
