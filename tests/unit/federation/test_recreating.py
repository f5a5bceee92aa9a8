"""Groups that a backup lacks are groups again after the restore, from what the clusters that run them kept."""

from __future__ import annotations

import zlib
from typing import Any

import msgspec
import pytest

from federation.core import batch, recovering
from federation.core import claims as claims_module
from federation.core.claims import ClaimBook, Origin, Unfit, Why, submitted_by
from federation.core.decisions import decision_view
from federation.core.events import Accepted, ApplyQueue, Declined, Refused, SubmitGroup
from federation.core.records import Recovered, Recreated, Restored, Submitted
from federation.core.stored import SPEC_JSON_BYTES_MAX, body_digest, canonical_json
from federation.protocol.messages import CLAIMS_MAX, Claim, Claims, ClaimsAnswer
from placement.model import Phase, Queue
from storage.entry import POSITIONS_PER_ENTRY
from tests.unit.federation.pump import Pump, pod_group
from tests.unit.federation.restores import AT_MS, Agent, backup_of, fleet, kinds, restored

ORIGIN = msgspec.msgpack.encode(Origin("submit-late", "sara", AT_MS, "HoldInPlace"))


def late(pump: Pump, agent: Agent, name: str = "late", **fields: Any) -> str:
    """A group that comes after the backup and runs; its uid."""
    uid = pump.submit(name, **fields)
    pump.run(3.0)
    agent.starts(uid)
    return uid


def claim(name: str = "late", origin: bytes = ORIGIN, **fields: Any) -> Claim:
    return Claim("1700000000000-abc.16384", zlib.compress(canonical_json(pod_group(name, **fields))), origin)


def recovered(pump: Pump) -> Recovered:
    (found,) = [one.record for one in pump.folded[pump.leader.name] if isinstance(one.record, Recovered)]
    return found


# --- a group comes back -----------------------------------------------------------------------------------------------


def test_a_group_that_the_backup_lacks_goes_on_under_its_uid_token_and_request_id() -> None:
    pump, (agent,) = fleet("c-1")
    place = backup_of(pump)
    uid = late(pump, agent, priority=7, labels={"team": "vision"})
    before, token = pump.group(uid), next(iter(agent.holds))
    again = restored(place, pump)
    again.run(40.0)
    row = again.group(uid)
    assert row.home is not None
    assert (row.home.cluster, str(row.home.token), row.phase) == ("c-1", token, Phase.BOUND)
    assert kinds(again) == ["Restored", "Recreated", "Recovered"]
    kept = ("name", "namespace", "queue", "priority", "request", "labels", "grace_s", "actor", "at_ms", "spec_digest")
    assert {key: getattr(row, key) for key in kept} == {key: getattr(before, key) for key in kept}
    assert again.state.spec(uid) == pump.state.spec(uid)
    assert again.state.queues[row.queue].gpus_used == pump.state.queues[before.queue].gpus_used
    repeated = again.ask(SubmitGroup(pod_group("late", priority=7, labels={"team": "vision"}), "submit-late", "sara"))
    assert isinstance(repeated, Accepted)
    assert repeated.uid == uid
    other = again.ask(SubmitGroup(pod_group("late", priority=8), "submit-late", "sara"))
    assert isinstance(other, Declined)
    assert other.why is Refused.REQUEST_ID_CONFLICT


def test_the_decision_log_says_that_it_is_known_again_and_shows_no_manifest() -> None:
    pump, (agent,) = fleet("c-1")
    place = backup_of(pump)
    uid = late(pump, agent)
    again = restored(place, pump)
    again.run(40.0)
    (line,) = again.state.history(uid)
    view = decision_view(line.position, line.record, lineage=again.state.lineage, uid=uid)
    assert (view["kind"], view["name"], view["cluster"]) == ("Recreated", "late", "c-1")
    assert view["summary"] == "default/late is known again, from what c-1 kept"
    assert view["detail"]["submitted"]["spec"] == ""
    assert (recovered(again).recreated, recovered(again).stopped) == (1, 0)


def test_it_moves_like_any_other_once_its_home_ends_and_finishes() -> None:
    pump, (agent,) = fleet("c-1")
    place = backup_of(pump)
    uid = late(pump, agent)
    again = restored(place, pump)
    again.run(40.0)
    old = next(iter(agent.holds))
    agent.holds.clear()
    agent.verdict(uid, "Released", token=old)
    again.run(20.0)
    token = agent.starts(uid)
    assert token.startswith(again.state.lineage)
    assert token > old
    agent.verdict(uid, "Finished", succeeded=True)
    assert again.group(uid).phase is Phase.SUCCEEDED


def test_it_is_made_again_after_one_restore_more_from_what_was_kept_of_its_second_home() -> None:
    pump, (agent,) = fleet("c-1")
    place = backup_of(pump)
    uid = late(pump, agent)
    again = restored(place, pump)
    again.run(40.0)
    old = agent.holds.pop()
    agent.verdict(uid, "Released", token=old)
    again.run(20.0)
    token = agent.starts(uid)
    once_more = restored(place, again, nonce="def", at_ms=AT_MS + 60_000)
    once_more.run(40.0)
    row = once_more.group(uid)
    assert row.home is not None
    assert (str(row.home.token), row.actor, row.name) == (token, "sara", "late")
    assert kinds(once_more) == ["Restored", "Recreated", "Recovered"]


def test_one_backup_restored_twice_has_everything_once_and_no_two_tokens_at_one_position() -> None:
    pump, (agent,) = fleet("c-1")
    place = backup_of(pump)
    first = late(pump, agent, "first")
    again = restored(place, pump)
    again.run(40.0)
    second = late(again, agent, "second")
    once_more = restored(place, again, nonce="def", at_ms=AT_MS + 60_000)
    once_more.run(40.0)
    third = late(once_more, agent, "third")
    homes = [once_more.group(uid).home for uid in (first, second, third)]
    positions = [home.token.position for home in homes if home is not None]
    assert len(positions) == 3
    assert positions == sorted(set(positions))
    assert len({home.token.lineage for home in homes if home is not None}) == 3
    assert {str(home.token) for home in homes if home is not None} == agent.holds


def test_the_next_leader_asks_again_for_what_the_one_before_was_told() -> None:
    pump, (one, other) = fleet("c-1", "c-2", servers=2)
    place = backup_of(pump)
    other.gpus_free = [0] * other.nodes
    pump.run(6.0)
    uid = late(pump, one)
    other.alive = False
    again = restored(place, pump, servers=2)
    again.run(60.0)
    assert again.state.group(uid) is None
    again.stop(again.leader.name)
    other.alive = True
    again.run(120.0)
    assert again.group(uid).home is not None


def test_more_groups_than_one_batch_takes_come_back_in_the_order_of_their_tokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recovering, "RECREATED_PER_BATCH_MAX", 2)
    pump, (agent,) = fleet("c-1")
    place = backup_of(pump)
    uids = [late(pump, agent, name) for name in ("c", "a", "e", "b", "d")]
    again = restored(place, pump)
    again.run(40.0)
    rows = [again.group(uid) for uid in uids]
    assert [row.submitted_at for row in rows] == sorted(row.submitted_at for row in rows)
    assert recovered(again).recreated == 5


@pytest.mark.parametrize(("more", "batches"), [(0, 2), (1, 1)], ids=["full", "one byte left"])
def test_manifests_of_one_batch_end_with_the_one_that_fills_its_room(
    monkeypatch: pytest.MonkeyPatch, more: int, batches: int
) -> None:
    pump, (agent,) = fleet("c-1")
    place = backup_of(pump)
    uids = [late(pump, agent, name) for name in ("a", "b")]
    monkeypatch.setattr(recovering, "RECREATED_BYTES_MAX", len(pump.state.spec(uids[0]) or b"") + more)
    again = restored(place, pump)
    again.run(40.0)
    assert len({again.group(uid).submitted_at // POSITIONS_PER_ENTRY for uid in uids}) == batches


@pytest.mark.parametrize(("shown", "named"), [(2, 2), (1, 1)], ids=["all", "one too many"])
def test_the_end_of_a_recovery_names_so_many_groups_that_were_stopped_and_counts_all(
    monkeypatch: pytest.MonkeyPatch, shown: int, named: int
) -> None:
    monkeypatch.setattr(recovering, "STOPPED_SHOWN_MAX", shown)
    pump, (agent,) = fleet("c-1")
    place = backup_of(pump)
    for name in ("a", "b"):
        late(pump, agent, name)
    again = restored(place, pump, store_format=2)
    again.run(40.0)
    assert recovered(again).stopped == 2
    assert len(recovered(again).stopped_groups) == named


def test_a_group_that_finds_no_room_in_the_batch_is_not_overtaken_by_smaller_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tokens of a cluster are kept in the order in which they are taken up."""
    pump, (agent,) = fleet("c-1")
    place = backup_of(pump)
    labels = {f"label-{number:02}": "x" * 60 for number in range(40)}
    uids = [late(pump, agent, "a"), late(pump, agent, "b", labels=labels), late(pump, agent, "c")]
    monkeypatch.setattr(batch, "BATCH_BYTES_MAX", 4_000)  # the second alone, or the others
    again = restored(place, pump)
    again.run(40.0)
    assert [again.group(uid).submitted_at for uid in uids] == sorted(again.group(uid).submitted_at for uid in uids)
    assert list(again.cluster("c-1").tokens) == sorted(again.cluster("c-1").tokens)
    assert len({again.group(uid).submitted_at // POSITIONS_PER_ENTRY for uid in uids}) > 1


def test_a_store_of_an_older_format_stops_them_as_its_other_servers_would() -> None:
    pump, (agent,) = fleet("c-1")
    place = backup_of(pump)
    uid = late(pump, agent)
    again = restored(place, pump, store_format=2)
    again.run(40.0)
    assert again.state.group(uid) is None
    assert kinds(again) == ["Restored", "Recovered"]
    assert recovered(again).stopped_groups == ((uid, "c-1", "NoRecord"),)


# --- who is at home ---------------------------------------------------------------------------------------------------


def both_hold(pump: Pump, one: Agent, other: Agent) -> tuple[str, str]:
    """A group that moved after the backup, of which the old cluster has something still; its tokens, oldest first."""
    other.gpus_free = [0] * other.nodes
    pump.run(6.0)
    uid = late(pump, one)
    old = next(iter(one.holds))
    one.gpus_free, other.gpus_free = [0] * one.nodes, [8] * other.nodes
    pump.run(6.0)
    one.verdict(uid, "Released", token=old)
    pump.run(40.0)
    return old, other.starts(uid)


def test_of_two_clusters_that_hold_it_the_one_with_the_higher_token_is_home_and_the_other_stops() -> None:
    pump, (one, other) = fleet("c-1", "c-2")
    place = backup_of(pump)
    _, token = both_hold(pump, one, other)
    uid = one.groups[next(iter(one.holds))]
    again = restored(place, pump)
    again.run(40.0)
    home = again.group(uid).home
    assert home is not None
    assert (home.cluster, str(home.token)) == ("c-2", token)
    desired = one.desired()
    assert desired is not None
    assert desired.groups == ()


def test_of_two_clusters_that_claim_one_token_the_first_by_name_is_home() -> None:
    pump, (one, other) = fleet("c-1", "c-2")
    place = backup_of(pump)
    other.gpus_free = [0] * other.nodes
    pump.run(6.0)
    uid = late(pump, one)
    (token,) = one.holds
    other.holds, other.groups, other.kept, other.heard = {token}, dict(one.groups), dict(one.kept), one.heard
    again = restored(place, pump)
    again.run(40.0)
    home = again.group(uid).home
    assert home is not None
    assert home.cluster == "c-1"
    assert recovered(again).recreated == 1


def test_a_group_whose_name_another_has_in_the_backup_is_stopped_and_the_log_says_so() -> None:
    pump, (agent,) = fleet("c-1")
    before = pump.submit("train")
    pump.run(3.0)
    old = agent.starts(before)
    place = backup_of(pump)
    agent.holds.remove(old)
    agent.verdict(before, "Finished", token=old, succeeded=True)
    uid = late(pump, agent, "train", request_id="second")
    again = restored(place, pump)
    again.run(40.0)
    assert again.state.group(uid) is None
    assert recovered(again).stopped_groups == ((uid, "c-1", "NameTaken"),)
    assert [note.fields for note in again.notes if note.event == "recovery.done"] == [
        (("recreated", "0"), ("stopped", "1"))
    ]


def test_a_queue_that_the_backup_lacks_is_told_and_the_group_counts_to_the_default_one() -> None:
    pump, (agent,) = fleet("c-1")
    place = backup_of(pump)
    pump.ask(ApplyQueue(Queue(name="vision"), "queue-vision", "olga"))
    uid = late(pump, agent, queue="vision")
    again = restored(place, pump)
    again.run(40.0)
    (line,) = again.state.history(uid)
    assert isinstance(line.record, Recreated)
    assert line.record.detail == "queue vision is not in the backup: it counts to default"
    assert again.group(uid).queue == "default"


def test_of_two_groups_with_one_request_id_the_later_goes_on_without_it_and_tokens_keep_their_order() -> None:
    pump, (agent,) = fleet("c-1")
    place = backup_of(pump)
    first, second, third = (late(pump, agent, name) for name in ("a", "b", "c"))
    agent.kept[second] = msgspec.structs.replace(agent.kept[second], origin=agent.kept[first].origin)
    again = restored(place, pump)
    again.run(40.0)
    assert again.state.requests["submit-a"].uid == first
    (line,) = again.state.history(second)
    assert isinstance(line.record, Recreated)
    assert line.record.detail == "request id submit-a is another request's"
    positions = [again.group(uid).submitted_at for uid in (first, second, third)]
    assert positions == sorted(positions)


def test_quota_is_charged_but_stops_nothing_that_runs() -> None:
    pump, (agent,) = fleet("c-1")
    uid_of_place = backup_of(pump)
    uid = late(pump, agent)
    again = restored(uid_of_place, pump)
    again.run(40.0)
    assert again.state.queues[again.group(uid).queue].gpus_used == {"": 8, "*": 8}


# --- what counts as known ---------------------------------------------------------------------------------------------


def test_a_leftover_of_a_group_that_ended_before_the_backup_is_not_made_again() -> None:
    pump, (agent,) = fleet("c-1")
    uid = late(pump, agent)
    (token,) = agent.holds
    agent.verdict(uid, "Finished", token=token, succeeded=True)
    for replica in pump.replicas.values():
        replica.state._pass_time(replica.state.clock_ms + 48 * 3_600 * 1_000)
    state = pump.state
    assert state.group(uid) is None, "it has left memory"
    again = restored(backup_of(pump), pump)
    again.run(40.0)
    assert recovered(again).recreated == 0
    assert recovered(again).stopped_groups == ((uid, "c-1", "Ended"),)


@pytest.mark.parametrize(
    ("uid", "ended"),
    [
        ("1700000000000-abc.100", True),
        ("1700000000000-abc.101", False),
        ("1600000000000-old.900", True),
        ("1750000000000-mid.101", False),
        ("1800000000000-new.1", True),
        ("1700000000000-abc.0101", True),
        ("1700000000000-abc.5001", True),
        ("nonsense", True),
        (f"1700000000000-{'b' * 45}.101", False),
        (f"1700000000000-{'b' * 46}.101", True),
    ],
    ids=["in-backup", "after", "older", "of-another-restore", "of-now", "padded", "beyond", "no-uid", "long", "longer"],
)
def test_only_what_may_have_been_submitted_after_the_backup_is_made_again(uid: str, *, ended: bool) -> None:
    pump, _ = fleet("c-1")
    state = restored(backup_of(pump), pump).state
    state.lineage = "1800000000000-new"  # type: ignore[assignment]
    state.recovering_since = 5_000  # type: ignore[assignment]
    state.restored = Restored(lineage=state.lineage, before="1700000000000-abc", made_ms=1, ends_at=100)
    assert recovering._has_ended(state, uid) is ended


def test_a_cluster_that_makes_up_a_token_of_the_new_lineage_is_not_believed() -> None:
    pump, (agent,) = fleet("c-1")
    place = backup_of(pump)
    uid = late(pump, agent)
    (token,) = agent.holds
    again = restored(place, pump)
    made_up = "9999999999999-zzz.77"
    agent.holds, agent.groups = {made_up}, {made_up: agent.groups[token]}
    again.run(40.0)
    assert again.state.group(uid) is None
    assert again.cluster("c-1").admitted


def claims_to_hold(agent: Agent, uid: str, token: str, *, like: str) -> None:
    """The agent says so, and brings what another group was made from, under another name."""
    agent.holds.add(token)
    agent.groups[token] = uid
    raw = zlib.compress(canonical_json(pod_group("made-up")))
    origin = msgspec.msgpack.encode(Origin("submit-made-up", "sara", AT_MS, "StopAndMove"))
    agent.kept[uid] = msgspec.structs.replace(agent.kept[like], uid=uid, spec=raw, origin=origin)


def test_two_tokens_of_a_cluster_that_would_stand_at_one_position_are_not_both_believed() -> None:
    """Tokens are kept by position: where the second of two ended, every server stopped for good."""
    pump, (agent,) = fleet("c-1")
    place = backup_of(pump)
    uid = late(pump, agent)
    (token,) = agent.holds
    again = restored(place, pump)
    position = int(token.rpartition(".")[2])
    other = f"{AT_MS - 1}-mid.{position - 1}"
    claims_to_hold(agent, other, f"{AT_MS - 1}-mid.{position}", like=uid)
    again.run(40.0)
    assert recovered(again).recreated == 1
    ((stopped, cluster, why),) = recovered(again).stopped_groups
    assert (cluster, why) == ("c-1", "BadToken")
    assert {stopped} | {row.uid for row in again.state.groups.values()} == {uid, other}


def test_a_token_that_would_stand_where_a_home_of_the_backup_does_is_not_believed() -> None:
    pump, (agent,) = fleet("c-1")
    known = late(pump, agent, "known")
    (token,) = agent.holds
    again = restored(backup_of(pump), pump)
    position = int(token.rpartition(".")[2])
    made_up = f"{AT_MS - 1}-mid.{position - 1}"
    claims_to_hold(agent, made_up, f"{AT_MS - 1}-mid.{position}", like=known)
    again.run(40.0)
    assert recovered(again).stopped_groups == ((made_up, "c-1", "BadToken"),)
    assert list(again.cluster("c-1").tokens.values()) == [known]


@pytest.mark.parametrize("token", ["before the backup's end", "before its group"])
def test_a_token_that_a_lost_group_cannot_have_got_is_not_believed(token: str) -> None:
    pump, (agent,) = fleet("c-1")
    ends_at = int(pump.state.head)
    place = backup_of(pump)
    uid = late(pump, agent)
    lineage, _, position = uid.rpartition(".")
    agent.holds.clear()
    claims_to_hold(agent, uid, f"{lineage}.{ends_at if token.startswith('before the') else position}", like=uid)
    again = restored(place, pump)
    again.run(40.0)
    assert recovered(again).stopped_groups == ((uid, "c-1", "BadToken"),)


# --- a claim is judged as a submission --------------------------------------------------------------------------------


def test_a_claim_is_made_into_what_a_submission_of_the_manifest_would_be() -> None:
    made = submitted_by(claim(priority=3), at_ms=AT_MS + 5)
    assert isinstance(made, Submitted)
    assert (made.name, made.priority, made.request_id, made.actor) == ("late", 3, "submit-late", "sara")
    assert (made.disconnect_policy, made.at_ms) == ("HoldInPlace", AT_MS)
    assert made.body_digest == body_digest(canonical_json(pod_group("late", priority=3)))


def test_a_claimed_group_is_not_suspended_since_it_runs_and_not_younger_than_now() -> None:
    made = submitted_by(claim(suspend=True), at_ms=AT_MS - 5)
    assert isinstance(made, Submitted)
    assert (made.suspend, made.at_ms) == (False, AT_MS - 5)


def spec(document: str) -> bytes:
    return zlib.compress(document.encode())


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (Claim("u"), Why.NO_RECORD),
        (Claim("u", b"no zlib", ORIGIN), Why.UNREADABLE),
        (Claim("u", spec('{"name":"a"}')[:-4], ORIGIN), Why.UNREADABLE),
        (Claim("u", spec("{"), ORIGIN), Why.INVALID),
        (Claim("u", spec('{"name":"A b","roles":[]}'), ORIGIN), Why.INVALID),
        (claim(origin=b""), Why.UNREADABLE),
        (claim(origin=msgspec.msgpack.encode(("r", "sara", 1, "RunTwice"))), Why.UNREADABLE),
        (claim(origin=msgspec.msgpack.encode(("r" * 129, "sara", 1, "HoldInPlace"))), Why.LIMIT),
        (claim(origin=msgspec.msgpack.encode(("r", "s" * 257, 1, "HoldInPlace"))), Why.LIMIT),
    ],
    ids=["none", "not-packed", "cut", "no-json", "bad-name", "no-origin", "no-policy", "long-request-id", "long-actor"],
)
def test_a_bad_claim_says_why(bad: Claim, why: Why) -> None:
    made = submitted_by(bad, at_ms=AT_MS)
    assert isinstance(made, Unfit)
    assert made.why is why


def test_a_manifest_of_the_largest_size_is_taken_and_one_byte_more_is_not() -> None:
    document = canonical_json(pod_group("late")).decode()
    fits = document + " " * (SPEC_JSON_BYTES_MAX - len(document))
    assert isinstance(submitted_by(Claim("u", spec(fits), ORIGIN), at_ms=AT_MS), Submitted)
    made = submitted_by(Claim("u", spec(fits + " "), ORIGIN), at_ms=AT_MS)
    assert made == Unfit(
        Why.UNREADABLE, f"the manifest unpacks to more than {SPEC_JSON_BYTES_MAX} bytes, or is cut off"
    )


def test_one_message_brings_so_many_claims_and_no_more() -> None:
    book = ClaimBook()
    groups = tuple(msgspec.structs.replace(claim(), uid=f"u-{number}") for number in range(CLAIMS_MAX + 1))
    book.take(Claims(ask_id=1, cluster="c-1", groups=groups), frozenset(one.uid for one in groups), at_ms=AT_MS)
    assert isinstance(book.get("c-1", f"u-{CLAIMS_MAX - 1}"), Submitted)
    assert book.get("c-1", f"u-{CLAIMS_MAX}") is None


def test_a_cluster_may_bring_so_many_bytes_of_manifests_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    one = claim()
    monkeypatch.setattr(claims_module, "BYTES_PER_CLUSTER_MAX", 2 * len(one.spec))
    book = ClaimBook()
    groups = tuple(msgspec.structs.replace(one, uid=uid) for uid in ("a", "b", "c"))
    book.take(Claims(ask_id=1, cluster="c-1", groups=groups), frozenset("abc"), at_ms=AT_MS)
    assert isinstance(book.get("c-1", "b"), Submitted)
    third = book.get("c-1", "c")
    assert isinstance(third, Unfit)
    assert third.why is Why.LIMIT
    book.take(Claims(ask_id=2, cluster="c-2", groups=groups[:1]), frozenset("a"), at_ms=AT_MS)
    assert isinstance(book.get("c-2", "a"), Submitted)


def test_what_nobody_asked_for_is_not_taken_and_the_first_word_stands() -> None:
    book = ClaimBook()
    first, second = msgspec.structs.replace(claim("one"), uid="u"), msgspec.structs.replace(claim("two"), uid="u")
    book.take(Claims(ask_id=1, cluster="c-1", groups=(first,)), frozenset(), at_ms=AT_MS)
    assert book.get("c-1", "u") is None
    for one in (first, second):
        book.take(Claims(ask_id=1, cluster="c-1", groups=(one,)), frozenset("u"), at_ms=AT_MS)
    made = book.get("c-1", "u")
    assert isinstance(made, Submitted)
    assert made.name == "one"


def test_a_fleet_that_does_not_recover_wants_nothing_and_only_its_own_cluster_may_claim() -> None:
    pump, (agent,) = fleet("c-1")
    late(pump, agent)
    answer = pump.ask_agent("c-1", Claims(ask_id=1, cluster="c-1", groups=(claim(),)))
    assert answer == ClaimsAnswer(ask_id=1)
    assert pump.ask_agent("c-2", Claims(ask_id=2, cluster="c-1")) is None
