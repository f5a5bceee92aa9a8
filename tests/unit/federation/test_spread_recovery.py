"""What becomes of the children of a spread group when the store is lost and the fleet goes on from a backup."""

from __future__ import annotations

from federation.core.events import Accepted, Declined, Refused
from federation.core.spreads import uids_of
from placement.model import GroupUid
from tests.unit.federation.pump import Pump
from tests.unit.federation.restores import Agent, backup_of, fleet, kinds, restored
from tests.unit.federation.test_spread import homes, submitted, web


def running(pump: Pump, agents: list[Agent]) -> tuple[str, list[GroupUid]]:
    """Nine replicas of `web` over three clusters, all of them running; its uid and its children's."""
    uid = submitted(pump, clusters=3)
    pump.run(3.0)
    uids = uids_of(uid)
    assert uids is not None
    for agent, child in zip(agents, uids, strict=False):
        agent.starts(child)
    return uid, list(uids)


def waiting_undivided() -> tuple[Pump, list[Agent], str]:
    """A fleet without a free GPU, and a spread group of three children that waits for it."""
    pump, agents = fleet("a", "b", "c")
    fill(agents)
    pump.run(6.0)
    return pump, agents, submitted(pump, clusters=3)


def fill(agents: list[Agent]) -> None:
    for agent in agents:
        agent.gpus_free = [0] * agent.nodes


def test_children_that_the_backup_lacks_are_one_spread_group_again_under_its_request_id() -> None:
    pump, agents = fleet("a", "b", "c")
    place = backup_of(pump)
    uid, _ = running(pump, agents)
    again = restored(place, pump)
    again.run(40.0)
    assert kinds(again) == ["Restored", "Recreated", "Recreated", "Recreated", "Recovered"]
    assert [row.name for row in again.state.spread("default", "web")] == ["web-1", "web-2", "web-3"]
    repeated = web(again, clusters=3)
    assert isinstance(repeated, Accepted)
    assert repeated.uid == uid
    other = web(again, clusters=3, request_id="r-2")
    assert isinstance(other, Declined)
    assert other.why is Refused.NAME_TAKEN


def test_a_child_whose_share_is_lost_starts_again_with_an_even_one_and_never_beside_a_sibling() -> None:
    pump, agents = fleet("a", "b", "c", "d")
    place = backup_of(pump)
    _, uids = running(pump, agents)
    again = restored(place, pump)
    again.run(40.0)
    agents[1].verdict(uids[1], "Released", token=agents[1].holds.pop())
    again.run(20.0)
    row = again.group(uids[1])
    assert row.home is not None
    assert row.home.cluster in {"b", "d"}
    assert row.child is not None
    assert (row.child.share, row.request.pods) == (3, 3)


def test_children_that_were_divided_after_the_backup_keep_the_homes_that_they_have() -> None:
    pump, agents, uid = waiting_undivided()
    assert homes(pump, uid) == ["Pending"] * 3
    place = backup_of(pump)
    for agent in agents:
        agent.gpus_free = [8] * agent.nodes
    pump.run(6.0)
    uids = uids_of(uid)
    assert uids is not None
    for agent, child in zip(agents, uids, strict=True):
        agent.starts(child)
    again = restored(place, pump)
    again.run(40.0)
    assert kinds(again) == ["Restored", "Adopted", "Adopted", "Adopted", "Recovered"]
    rows = [again.group(child) for child in uids]
    assert [row.home.cluster for row in rows if row.home is not None] == ["a", "b", "c"]


def test_a_child_that_nobody_holds_after_a_restore_starts_by_itself() -> None:
    pump, agents = fleet("a", "b", "c")
    uid = submitted(pump, clusters=3, replicas=6)
    place = backup_of(pump)
    pump.run(3.0)
    uids = uids_of(uid)
    assert uids is not None
    for agent, child in zip(agents[:2], uids, strict=False):
        agent.starts(child)
    again = restored(place, pump)
    again.run(60.0)
    third = again.group(uids[2])
    assert third.home is not None
    assert (third.home.cluster, third.request.pods) == ("c", 2)


def test_children_whose_spread_groups_name_another_has_in_the_backup_are_stopped() -> None:
    pump, agents = fleet("a", "b", "c")
    before = pump.submit("web")
    pump.run(3.0)
    old = agents[0].starts(before)
    place = backup_of(pump)
    agents[0].holds.remove(old)
    agents[0].verdict(before, "Finished", token=old, succeeded=True)
    _, uids = running(pump, agents)
    again = restored(place, pump)
    again.run(40.0)
    assert kinds(again) == ["Restored", "Unheld", "Recovered"]
    assert all(again.state.group(uid) is None for uid in uids)


def test_children_that_are_left_of_a_spread_group_start_with_their_shares_not_with_all_of_it() -> None:
    """A sibling that was made again has ended, and left memory: the others were divided anew, with its replicas too."""
    pump, agents, uid = waiting_undivided()
    place = backup_of(pump)
    for agent in agents:
        agent.gpus_free = [8] * agent.nodes
    pump.run(6.0)
    uids = uids_of(uid)
    assert uids is not None
    token = agents[0].starts(uids[0])
    fill(agents)
    again = restored(place, pump, servers=2)
    again.run(60.0)
    assert kinds(again) == ["Restored", "Adopted", "Recovered"]
    agents[0].holds.clear()
    agents[0].verdict(uids[0], "Finished", token=token, succeeded=True)
    for replica in again.replicas.values():
        replica.state._pass_time(replica.state.clock_ms + 48 * 3_600 * 1_000)
    assert again.state.group(uids[0]) is None, "it has left memory"
    again.stop(again.leader.name)  # whoever leads next looks at all who wait
    for agent in agents:
        agent.gpus_free = [8] * agent.nodes
    again.run(60.0)
    assert [again.group(child).request.pods for child in uids[1:]] == [3, 3]
