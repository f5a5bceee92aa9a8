"""After a restore: from what every cluster says it holds, the records that bring the journal up to it (DESIGN §7).

Level-triggered like all of failover: worked out anew from the state, the leases and the views, so that a new leader
goes on where the old one stopped. Nothing is placed or fenced meanwhile. A cluster that says nothing is waited for,
until an operator confirms that it is dead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

import msgspec

from federation.core.books import DEFAULT_QUEUE
from federation.core.claims import ClaimBook, Unfit, Why
from federation.core.leases import Leases
from federation.core.records import Adopted, AnyRecord, Recovered, Recreated, Submitted, SubmittedChild, Unheld
from federation.core.rows import ClusterRow, GroupRow
from federation.core.spreads import first_uid
from federation.core.state import State
from federation.core.views import View, Views
from federation.protocol.lease import LeaseState
from placement.model import ClusterName, GroupUid, Position, Token

ACTOR: Final = "muster:recovery"
RECREATED_PER_BATCH_MAX: Final = 500
RECREATED_BYTES_MAX: Final = 512 * 1024  # of manifests: with one more of any size they fit into one batch
UID_CHARS_MAX: Final = 63  # a label's value, which a uid is in its cluster
STOPPED_SHOWN_MAX: Final = 100  # in the record that ends a recovery, which then has some 10 KiB at most


@dataclass(frozen=True, slots=True)
class Held:
    """A token that a cluster holds: a container of it runs there, or may start."""

    token: Token
    cluster: ClusterName


@dataclass(frozen=True, slots=True)
class Heard:
    """What a recovery goes by: leases, reports, and claims."""

    leases: Leases
    views: Views
    claims: ClaimBook


def waiting_for(state: State, heard: Heard, now_s: float) -> list[ClusterName]:
    """The clusters that have not said yet what they hold, or what it was made from, by name."""
    return sorted(
        row.name
        for row in _open(state)
        if _told(row, heard, state.lineage, now_s) is None or wanted_of(state, heard, row.name, limit=1)
    )


def wanted_of(state: State, heard: Heard, cluster: ClusterName, *, limit: int) -> list[str]:
    """Groups of which this cluster has to say what they were made from, by uid; the first so many. O(groups there)."""
    view = heard.views.get(cluster)
    if not heard.claims.open or not state.recovering_since or view is None or not view.keeps_records:
        return []
    lacked = {uid for uid in view.groups.values() if uid and GroupUid(uid) not in state.groups}
    missing = (uid for uid in sorted(lacked) if heard.claims.get(cluster, uid) is None and not _has_ended(state, uid))
    return list(islice(missing, limit))


def proposals(state: State, heard: Heard, now_s: float, *, at_ms: int) -> list[AnyRecord]:
    """The next records; none while a cluster is waited for. First the homes end that nobody holds, then what is held
    and not known is made again or adopted, and when nothing of these is left, the clusters are admitted. O(groups)."""
    told: dict[ClusterName, Mapping[str, str]] = {}
    for row in _open(state):
        tokens = _told(row, heard, state.lineage, now_s)
        if tokens is None or wanted_of(state, heard, row.name, limit=1):
            return []
        told[row.name] = tokens
    held = _highest(state, told)
    ended = [row for row in state.groups.values() if _is_over(row, held.get(row.uid))]
    if ended:
        return [_unheld(row, at_ms) for row in ended]
    news, stopped = _taken_up(state, heard.claims, held, at_ms)
    if news:
        return news
    return [_recovered(state, heard.leases, told, held, stopped, at_ms)]


def _taken_up(
    state: State, claims: ClaimBook, held: Mapping[GroupUid, Held], at_ms: int
) -> tuple[list[AnyRecord], dict[GroupUid, Unfit]]:
    """Groups that get the home which they have, by token; and those that the backup lacks and that cannot."""
    news: list[AnyRecord] = []
    stopped: dict[GroupUid, Unfit] = {}
    names: dict[tuple[str, str], GroupUid] = {}
    requests: set[str] = set()
    places = _places(state)
    room = RECREATED_BYTES_MAX
    for uid, one in sorted(held.items(), key=lambda item: (item[1].token, item[0])):
        row = state.groups.get(uid)
        place = (one.cluster, one.token.position)
        taken_by = places.get(place, uid)
        if row is not None:
            if _is_news(row, one) and taken_by == uid:
                places[place] = uid
                news.append(_adopted(uid, one, at_ms))
            continue
        made = recreated(state, claims, uid, one, at_ms=at_ms)
        if taken_by != uid:
            made = Unfit(Why.BAD_TOKEN, f"{one.token} stands where that of {taken_by} does")
        if isinstance(made, Recreated):
            owners = _names_of(made.submitted, uid)
            taken = [name for name, owner in owners.items() if names.get(name, owner) != owner]
            if taken:
                made = Unfit(Why.NAME_TAKEN, f"{'/'.join(taken[0])} is another's that runs")
        if isinstance(made, Unfit):
            stopped[uid] = made
            continue
        if len(news) >= RECREATED_PER_BATCH_MAX or room <= 0 or made.submitted.request_id in requests:
            break  # the rest follows when these have landed, so that tokens are taken up in their order
        names |= _names_of(made.submitted, uid)
        places[place] = uid
        requests |= {made.submitted.request_id} - {""}
        room -= len(made.submitted.spec)
        news.append(made)
    return news, stopped


def recreated(state: State, claims: ClaimBook, uid: GroupUid, held: Held, *, at_ms: int) -> Recreated | Unfit:
    """The group that a cluster holds and the state lacks, made again; or why it is to be stopped."""
    if _has_ended(state, uid):
        return Unfit(Why.ENDED, "the backup would know it if it had not ended before")
    if _knows(state, held.token) or held.token <= Token.parse(uid):
        return Unfit(Why.BAD_TOKEN, f"{held.token} is no token that it can have got since the backup")
    claim = claims.get(held.cluster, uid)
    if claim is None:
        return Unfit(Why.NO_RECORD, "its agent keeps no manifests, or the store is of an older format")
    if isinstance(claim, Unfit):
        return claim
    if isinstance(claim, SubmittedChild) and not claims.children_open:
        return Unfit(Why.NO_RECORD, "it is a child of a spread group, and the store is of an older format")
    for (namespace, name), owner in _names_of(claim, uid).items():
        taken_by = state.name_taken_by(namespace, name)
        if taken_by is not None and _owner(state.groups[taken_by], name) != owner:
            return Unfit(Why.NAME_TAKEN, f"{namespace}/{name} is {taken_by}, which has not ended")
    said: list[str] = []
    if state.queue(claim.queue) is None:
        said.append(f"queue {claim.queue} is not in the backup: it counts to {DEFAULT_QUEUE}")
        claim = msgspec.structs.replace(claim, queue=DEFAULT_QUEUE)
    if claim.request_id in state.requests:
        said.append(f"request id {claim.request_id} is another request's")
        claim = msgspec.structs.replace(claim, request_id="", cause="")
    return Recreated(
        actor=ACTOR,
        at_ms=at_ms,
        uid=uid,
        token=str(held.token),
        cluster=held.cluster,
        submitted=claim,
        detail="; ".join(said),
    )


def _names_of(made: Submitted, uid: GroupUid) -> dict[tuple[str, str], GroupUid]:
    """The names that the group takes, and whose each is: that of a spread group is its first child's."""
    names = {(made.namespace, made.name): uid}
    if isinstance(made, SubmittedChild):
        names[made.namespace, made.child.name] = first_uid(uid, made.child.number)
    return names


def _owner(row: GroupRow, name: str) -> GroupUid:
    """Whose the name is of those that a group takes."""
    child = row.child
    return first_uid(row.uid, child.number) if child is not None and child.name == name else row.uid


def _is_earlier(state: State, token: Token) -> bool:
    """Whether it is of a position that a journal before this restore may have had."""
    return token.lineage < state.lineage and token.position < state.recovering_since


def _has_ended(state: State, uid: str) -> bool:
    """Whether a group that the state does not have ended before the backup was made (or never was), so that what runs
    of it is a leftover."""
    try:
        identity = Token.parse(uid)
    except ValueError:
        return True
    return len(uid) > UID_CHARS_MAX or not _is_earlier(state, identity) or _knows(state, identity)


def _knows(state: State, token: Token) -> bool:
    """Whether the backup knows what was recorded there. What an earlier restore did not take up had its chance then."""
    restored = state.restored
    if restored is None:
        return True
    if token.lineage == restored.before:
        return token.position <= restored.ends_at
    return token.lineage < restored.before and not state.restored_again


def _places(state: State) -> dict[tuple[ClusterName, Position], GroupUid]:
    """Where tokens stand already: those of a cluster are told apart by their positions."""
    return {(row.name, position): uid for row in _open(state) for position, uid in row.tokens.items()}


def _open(state: State) -> list[ClusterRow]:
    return [row for row in state.clusters.values() if row.recovering]


def _told(row: ClusterRow, heard: Heard, lineage: str, now_s: float) -> Mapping[str, str] | None:
    """Tokens with their groups (empty where the cluster itself does not know), as told under the lease that lets it
    start nothing; None while it has not told."""
    body, view = heard.leases.body(row.name), heard.views.get(row.name)
    if body is None or body.state != LeaseState.RECOVERING or not body.renewal_nonce:
        return None
    if view is None or view.live or view.tokens is None or view.epoch != body.epoch:
        return None
    if heard.views.stale(row.name, now_s) or not _made_under(view, lineage):
        return None
    return view.groups


def _made_under(view: View, lineage: str) -> bool:
    """Whether the report was made under the lease of this recovery. One from before, when the old lease had run out,
    looks alike, but names no groups and may be followed by starts. Agents of older versions do not name the lineage: of
    theirs count those that name groups, or keep records, which no report outside a recovery does."""
    if view.recovers:
        return view.recovers == lineage
    return view.keeps_records or any(view.groups.values())


def _highest(state: State, told: Mapping[ClusterName, Mapping[str, str]]) -> dict[GroupUid, Held]:
    """Of each group the newest token that anybody holds; older ones are wanted no more, so their agents stop them. What
    was not placed before the restore is no token: later ones would not be higher. Nor is what the backup would know as
    the home of a group that it has, if it were."""
    held: dict[GroupUid, Held] = {}
    homes = {str(row.home.token): row.uid for row in state.groups.values() if row.home is not None}
    for cluster in sorted(told):
        for text, said in sorted(told[cluster].items()):
            uid = said or homes.get(text, "")  # of pods without an intent only the token is known
            one = Held(Token.parse(text), cluster)
            before = held.get(GroupUid(uid))
            if not uid or not _is_earlier(state, one.token) or _is_of_old(state, uid, one):
                continue
            if before is None or before.token < one.token:
                held[GroupUid(uid)] = one
    return held


def _is_of_old(state: State, uid: str, held: Held) -> bool:
    """Whether the backup has the group, and knows that this is not its token."""
    row = state.group(uid)
    if row is None or not _knows(state, held.token):
        return False
    return row.home is None or row.home.token != held.token


def _is_over(row: GroupRow, held: Held | None) -> bool:
    """Whether the journal's home is not what runs. Those in clusters that are dead have ended already."""
    return row.home is not None and (held is None or held.token > row.home.token)


def _is_news(row: GroupRow, held: Held) -> bool:
    """Whether the journal has to learn of it. A group that the backup knows as ended is not taken up: nobody wants it
    any more, so its agent stops it."""
    if row.phase.terminal:
        return False
    if row.home is None:
        return row.last_token is None or held.token > row.last_token
    return row.home.token == held.token and not row.bound_at


def _unheld(row: GroupRow, at_ms: int) -> Unheld:
    assert row.home is not None
    return Unheld(actor=ACTOR, at_ms=at_ms, uid=row.uid, token=str(row.home.token), cluster=row.home.cluster)


def _adopted(uid: GroupUid, held: Held, at_ms: int) -> Adopted:
    return Adopted(actor=ACTOR, at_ms=at_ms, uid=uid, token=str(held.token), cluster=held.cluster)


def _recovered(
    state: State,
    leases: Leases,
    told: Mapping[ClusterName, Mapping[str, str]],
    held: Mapping[GroupUid, Held],
    stopped: Mapping[GroupUid, Unfit],
    at_ms: int,
) -> Recovered:
    """The end of the recovery, with what became of groups that the backup lacks."""
    since = state.recovering_since
    return Recovered(
        actor=ACTOR,
        at_ms=at_ms,
        epochs={str(name): _epoch(leases, name) for name in sorted(told)},
        recreated=sum(row.submitted_at > since for row in state.groups.values()),
        stopped=len(stopped),
        stopped_groups=tuple(
            (uid, held[uid].cluster, unfit.why.value) for uid, unfit in islice(stopped.items(), STOPPED_SHOWN_MAX)
        ),
    )


def _epoch(leases: Leases, name: ClusterName) -> int:
    body = leases.body(name)
    assert body is not None
    return body.epoch
