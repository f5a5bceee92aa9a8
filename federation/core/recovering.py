"""After a restore: from what every cluster says it holds, the records that bring the journal up to it (DESIGN §7).

Level-triggered like all of failover: worked out anew from the state, the leases and the views, so that a new leader
goes on where the old one stopped. Nothing is placed or fenced meanwhile. A cluster that says nothing is waited for,
until an operator confirms that it is dead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from federation.core.leases import Leases
from federation.core.records import Adopted, AnyRecord, Recovered, Unheld
from federation.core.rows import ClusterRow, GroupRow
from federation.core.state import State
from federation.core.views import Views
from federation.protocol.lease import LeaseState
from placement.model import ClusterName, GroupUid, Token

ACTOR: Final = "muster:recovery"


@dataclass(frozen=True, slots=True)
class Held:
    """A token that a cluster holds: a container of it runs there, or may start."""

    token: Token
    cluster: ClusterName


def waiting_for(state: State, leases: Leases, views: Views, now_s: float) -> list[ClusterName]:
    """The clusters that have not said yet what they hold, by name."""
    return sorted(row.name for row in _open(state) if _told(row, leases, views, now_s) is None)


def proposals(state: State, leases: Leases, views: Views, now_s: float, *, at_ms: int) -> list[AnyRecord]:
    """The next records; none while a cluster is waited for. First the homes end that nobody holds, then what is held
    and not known is adopted, and when nothing of either is left, the clusters are admitted. O(groups)."""
    told: dict[ClusterName, Mapping[str, str]] = {}
    for row in _open(state):
        tokens = _told(row, leases, views, now_s)
        if tokens is None:
            return []
        told[row.name] = tokens
    held = _highest(told)
    ended = [row for row in state.groups.values() if _is_over(row, held.get(row.uid))]
    if ended:
        return [_unheld(row, at_ms) for row in ended]
    adopted = sorted((one.token, uid) for uid, one in held.items() if _is_news(state.groups.get(uid), one))
    if adopted:
        return [_adopted(uid, held[uid], at_ms) for _, uid in adopted]
    epochs = {str(name): _epoch(leases, name) for name in sorted(told)}
    return [Recovered(actor=ACTOR, at_ms=at_ms, epochs=epochs)]


def _open(state: State) -> list[ClusterRow]:
    return [row for row in state.clusters.values() if row.recovering]


def _told(row: ClusterRow, leases: Leases, views: Views, now_s: float) -> Mapping[str, str] | None:
    """Tokens with their groups (empty where the cluster itself does not know), as told under the lease that lets it
    start nothing; None while it has not told."""
    body, view = leases.body(row.name), views.get(row.name)
    if body is None or body.state != LeaseState.RECOVERING or not body.renewal_nonce:
        return None
    if view is None or view.live or view.tokens is None or view.epoch != body.epoch:
        return None
    return None if views.stale(row.name, now_s) else view.groups


def _highest(told: Mapping[ClusterName, Mapping[str, str]]) -> dict[GroupUid, Held]:
    """Of each group the newest token that anybody holds; older ones are wanted no more, so their agents stop them."""
    held: dict[GroupUid, Held] = {}
    for cluster in sorted(told):
        for text, uid in sorted(told[cluster].items()):
            one = Held(Token.parse(text), cluster)
            before = held.get(GroupUid(uid))
            if uid and (before is None or before.token < one.token):
                held[GroupUid(uid)] = one
    return held


def _is_over(row: GroupRow, held: Held | None) -> bool:
    """Whether the journal's home is not what runs. Those in clusters that are dead have ended already."""
    return row.home is not None and (held is None or held.token > row.home.token)


def _is_news(row: GroupRow | None, held: Held) -> bool:
    """Whether the journal has to learn of it. A group that the backup lacks, or knows as ended, is not taken up: nobody
    wants it any more, so its agent stops it."""
    if row is None or row.phase.terminal:
        return False
    if row.home is None:
        return row.last_token is None or held.token > row.last_token
    return row.home.token == held.token and not row.bound_at


def _unheld(row: GroupRow, at_ms: int) -> Unheld:
    assert row.home is not None
    return Unheld(actor=ACTOR, at_ms=at_ms, uid=row.uid, token=str(row.home.token), cluster=row.home.cluster)


def _adopted(uid: GroupUid, held: Held, at_ms: int) -> Adopted:
    return Adopted(actor=ACTOR, at_ms=at_ms, uid=uid, token=str(held.token), cluster=held.cluster)


def _epoch(leases: Leases, name: ClusterName) -> int:
    body = leases.body(name)
    assert body is not None
    return body.epoch
