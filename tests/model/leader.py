"""What the leader records and swaps. Whoever leads sees the whole journal, so a change of leader, or its crash, is no
more than a pause between two of these steps; a deposed leader's append hits a taken number and does not happen.
"""

from collections.abc import Iterator

from tests.model.rules import Rule, Setting
from tests.model.state import NO_TOKEN, Cluster, Copy, Kind, Record, Site, Token


def landing_steps(setting: Setting, site: Site, copy: Copy) -> Iterator[tuple[str, Site]]:
    """Verdicts that were sent land, however late and often."""
    token, home_token = copy.token, site.home_token()
    ends = home_token == token or not setting.keeps(Rule.VERDICT_NAMES_TOKEN)
    if copy.verdict_sent and home_token is not None and ends:
        yield site.record(f"Released(t{token})", Record(Kind.RELEASED, site.at, token=home_token))
    counts = home_token == token or not setting.keeps(Rule.BOUND_ONLY_WHILE_HOME)
    if copy.bound_sent and token not in site.journal.bound and counts:
        yield site.record(f"Bound(t{token})", Record(Kind.BOUND, site.at, token=token))


def place_steps(setting: Setting, site: Site) -> Iterator[tuple[str, Site]]:
    """The group gets a home here. The clusters are alike, so the first home is c-1 without loss."""
    count = site.journal.placements_count
    if count == setting.placements_max or (count == 0 and site.at != 0):
        return
    if site.journal.home is not None and setting.keeps(Rule.PLACED_ONLY_WITHOUT_HOME):
        return
    if site.cluster.active or not setting.keeps(Rule.PLACED_ONLY_ON_ACTIVE_LEASE):
        token = Token(site.journal.end + 1)
        told, after = site.record(f"Placed({site.name}), t{token}", Record(Kind.PLACED, site.at))
        yield told, after.with_cluster(after.cluster._replace(copies=(*site.cluster.copies, Copy(token))))


def fence_steps(setting: Setting, site: Site) -> Iterator[tuple[str, Site]]:
    """Lease to Fenced, then the record of it, then FenceDone when K has passed."""
    cluster, epoch = site.cluster, site.cluster.epoch
    if cluster.active:
        silent = not cluster.before_deadline or not setting.keeps(Rule.FENCE_AGAINST_SILENT_VERSION)
        if silent and epoch < setting.fences_max[site.at]:
            yield f"{site.name}'s lease -> Fenced", site.with_cluster(cluster._replace(active=False, epoch=epoch + 1))
    elif not site.recorded(Kind.CLUSTER_FENCED):
        fenced = Record(Kind.CLUSTER_FENCED, site.at, epoch=epoch)
        yield site.record(f"ClusterFenced({site.name})", fenced)
    elif not site.recorded(Kind.FENCE_DONE) and _k_passed(setting, cluster):
        token = _ended_by_fence(setting, site)
        done = Record(Kind.FENCE_DONE, site.at, token=token, epoch=epoch)
        yield site.record(f"FenceDone({site.name}{f', ends t{token}' if token else ''})", done)


def _k_passed(setting: Setting, cluster: Cluster) -> bool:
    held = [copy for copy in cluster.copies if setting.holds() and copy.bound_acked]
    stopped = all(copy in held for copy in cluster.copies if copy.live)
    return stopped or not setting.keeps(Rule.FENCE_DONE_AFTER_K)


def _ended_by_fence(setting: Setting, site: Site) -> Token:
    token = site.home_token()
    if token is None:
        return NO_TOKEN
    spared = setting.holds() and token in site.journal.bound and setting.keeps(Rule.FENCE_DONE_SPARES_BOUND)
    return NO_TOKEN if spared else token


def admission_steps(setting: Setting, site: Site) -> Iterator[tuple[str, Site]]:
    """The record, then the swap; a leader that finds the record without the swap does the swap."""
    cluster = site.cluster
    if cluster.active:
        return
    ready = site.recorded(Kind.FENCE_DONE) or (
        site.recorded(Kind.CLUSTER_FENCED) and not setting.keeps(Rule.READMIT_AFTER_FENCE_DONE)
    )
    if ready and not site.recorded(Kind.CLUSTER_ADMITTED) and _clean(setting, site):
        admitted = Record(Kind.CLUSTER_ADMITTED, site.at, epoch=cluster.epoch)
        yield site.record(f"ClusterAdmitted({site.name})", admitted)
    if site.recorded(Kind.CLUSTER_ADMITTED) or not setting.keeps(Rule.SWAP_NAMES_EPOCH):
        for floor in site.journal.admissions(site.at)[-1:]:  # without the rule: an earlier epoch's swap, delayed
            told = f"{site.name}'s lease -> Active, floor {floor}"
            yield told, site.with_cluster(cluster._replace(active=True, floor=floor))


def _clean(setting: Setting, site: Site) -> bool:
    """What the report shows. It is made after the fence, when pods can only become fewer, so its delay is harmless."""
    if not setting.keeps(Rule.READMIT_AFTER_CLEAN_REPORT):
        return True
    counted = setting.keeps(Rule.REPORT_COUNTS_UNSTARTED_PODS)
    strangers = [copy for copy in site.cluster.copies if copy.token != site.home_token()]
    return not any(copy.live or (counted and copy.startable) for copy in strangers)


def confirm_dead_steps(setting: Setting, site: Site) -> Iterator[tuple[str, Site]]:
    """An operator's word that nothing of the group is left there; it is true, but may come late."""
    token = site.home_token()
    if not setting.holds() or site.cluster.active or token is None or not site.recorded(Kind.CLUSTER_FENCED):
        return
    late = site.recorded(Kind.CLUSTER_ADMITTED) and setting.keeps(Rule.CONFIRM_DEAD_BEFORE_ADMISSION)
    if not late and not any(copy.writing or copy.startable or copy.live for copy in site.cluster.copies):
        dead = Record(Kind.CONFIRMED_DEAD, site.at, token=token)
        yield site.record(f"confirm-dead({site.name}), ends t{token}", dead)
