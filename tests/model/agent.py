"""What a cluster does by itself: its agent's lease, writes and verdicts, its kubelets and its guard.

Time is only an order here: `deadline passes` comes before a fence (W > TTL), and from then on every write has timed out
and the guard lets nothing start, until a renewal succeeds again.
"""

from collections.abc import Iterator

from tests.model.rules import Rule, Setting
from tests.model.state import NO_POSITION, Cluster, Copy, Position, Site, Token


def lease_steps(setting: Setting, site: Site) -> Iterator[tuple[str, Site]]:
    """Renewals, the deadline, and restarts of the agent; a restarted one has none, its guard still does."""
    cluster, name = site.cluster, site.name
    if cluster.active:
        yield f"{name} renews", site.live_with(cluster.floor)
    elif not setting.keeps(Rule.ONLY_LEADER_READMITS):
        relayed = site.with_cluster(cluster._replace(active=True))
        yield f"a relay turns {name}'s lease Active", relayed.live_with(cluster.floor)
    if cluster.before_deadline:
        yield f"{name}'s deadline passes", site.with_cluster(_after_deadline(setting, cluster))
    elif not setting.keeps(Rule.DEADLINE_FROM_SENDING):
        for floor in (NO_POSITION, *site.journal.admissions(site.at)):
            yield f"{name} counts a late reply (floor {floor}) from its arrival", site.live_with(floor)
    if cluster.lease_floor is not None:
        yield f"{name}'s agent restarts", site.with_cluster(cluster._replace(lease_floor=None))


def _after_deadline(setting: Setting, cluster: Cluster) -> Cluster:
    bounded = setting.keeps(Rule.WRITE_ENDS_AT_DEADLINE)
    copies = tuple(copy._replace(writing=copy.writing and not bounded) for copy in cluster.copies)
    return cluster._replace(before_deadline=False, lease_floor=None, copies=copies)


def write_steps(setting: Setting, site: Site, copy: Copy) -> Iterator[tuple[str, Site]]:
    """A write is one check of lease, answer and ledger, then a request that lands later, or never."""
    token, name = copy.token, site.name
    if site.cluster.lease_floor is None and setting.keeps(Rule.ACT_UNDER_LIVE_LEASE):
        return
    if copy.given_up and setting.keeps(Rule.GIVE_UP_IS_FINAL):
        return
    as_of = _oldest_answer(setting, site, token)
    if setting.keeps(Rule.EVERY_WRITE_CHECKS_AGAIN):
        if as_of is not None and not copy.writing:
            yield f"{name} writes t{token} (as_of {as_of})", site.with_copy(copy._replace(writing=True))
        return
    if as_of is not None and not copy.intended:
        yield f"{name} intends t{token} (as_of {as_of})", site.with_copy(copy._replace(intended=True))
    if copy.intended and not copy.writing:
        yield f"{name} writes t{token} (intended)", site.with_copy(copy._replace(writing=True))


def _oldest_answer(setting: Setting, site: Site, token: Token) -> Position | None:
    """The oldest prefix whose answer names the token and which the agent would accept: any replica may lag so far."""
    lowest = NO_POSITION
    if setting.keeps(Rule.ANSWER_NOT_BELOW_FLOOR) and site.cluster.lease_floor is not None:
        lowest = max(lowest, site.cluster.lease_floor)
    if setting.keeps(Rule.ANSWER_NOT_BELOW_LANDED):
        lowest = max(lowest, site.cluster.landed)
    for as_of in range(lowest, site.journal.end + 1):
        if site.journal.homes[as_of] == (site.at, token):
            return Position(as_of)
    return None


def pod_steps(setting: Setting, site: Site, copy: Copy) -> Iterator[tuple[str, Site]]:
    """Writes land or are lost, kubelets start containers, pods are deleted and containers end, at any time."""
    token = copy.token
    if copy.writing:
        yield f"t{token}'s write lands", site.with_copy(copy._replace(writing=False, startable=True))
        yield f"t{token}'s write is lost", site.with_copy(copy._replace(writing=False))
    if copy.startable:
        held = setting.holds() and copy.bound_acked
        if site.cluster.before_deadline or held or not setting.keeps(Rule.GUARD_STOPS_LATE_STARTS):
            yield f"t{token} STARTS in {site.name}", site.with_copy(copy._replace(startable=False, live=True))
        yield f"t{token}'s pod is deleted", site.with_copy(copy._replace(startable=False))
    if copy.live:
        yield f"t{token} ends", site.with_copy(copy._replace(live=False))


def verdict_steps(setting: Setting, site: Site, copy: Copy) -> Iterator[tuple[str, Site]]:
    """Ledger writes, verdicts and their replies: allowed with or without a lease."""
    token, name = copy.token, site.name
    ended = site.journal.ended.get(token)
    if not copy.given_up and (ended is None or ended > site.cluster.landed):
        yield f"{name} gives up t{token}", site.with_copy(copy._replace(given_up=True))
    if copy.given_up and not copy.verdict_sent and _may_send(setting, copy):
        yield f"{name} sends the verdict on t{token}", site.with_copy(copy._replace(verdict_sent=True))
    if ended is None and not setting.keeps(Rule.ANSWERED_AFTER_LANDING):
        ended = site.journal.end
    if copy.given_up and copy.verdict_sent and ended is not None:
        landed = max(site.cluster.landed, ended) if setting.keeps(Rule.DROP_RAISES_LANDED) else site.cluster.landed
        dropped = site.with_copy(copy._replace(given_up=False))
        told = f"{name} drops t{token}'s entry, landed = {landed}"
        yield told, dropped.with_cluster(dropped.cluster._replace(landed=landed))
    if setting.holds():
        yield from _bound_steps(setting, site, copy)


def _may_send(setting: Setting, copy: Copy) -> bool:
    running = copy.live and setting.keeps(Rule.VERDICT_AFTER_LAST_CONTAINER)
    unstarted = copy.startable and setting.keeps(Rule.VERDICT_COUNTS_UNSTARTED_PODS)
    writing = copy.writing and setting.keeps(Rule.VERDICT_AFTER_LAST_WRITE)
    return not (running or unstarted or writing)


def _bound_steps(setting: Setting, site: Site, copy: Copy) -> Iterator[tuple[str, Site]]:
    token, name = copy.token, site.name
    if not copy.bound_sent and not copy.given_up and (copy.startable or copy.live):
        yield f"{name} sends Bound of t{token}", site.with_copy(copy._replace(bound_sent=True))
    landed = token in site.journal.bound
    if copy.bound_sent and not copy.bound_acked and (landed or not setting.keeps(Rule.HELD_ONLY_IF_ACKNOWLEDGED)):
        told = f"{name} {'hears that Bound of' if landed else 'trusts that Bound of'} t{token} landed"
        yield told, site.with_copy(copy._replace(bound_acked=True))
