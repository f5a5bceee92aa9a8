"""A state that went through a snapshot is the state that was: whenever it was taken, whatever was folded meanwhile."""

from __future__ import annotations

import copy
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from federation.core import dump as dump_module
from federation.core import shards as stored
from federation.core.dump import Dump, NamedShard
from federation.core.invariants import check
from federation.core.records import AnyRecord, ClusterRemoved, GaveUp, IntentSet, QueueApplied, Submitted
from federation.core.rows import ClusterRow, GroupRow, QueueRow
from federation.core.shards import Kind, Shard, UnreadableShardError, decode_shard, encode_shard
from federation.core.state import State
from placement.model import Position
from storage.entry import position
from tests.unit.federation.pictures import facts, loaded, shards_of
from tests.unit.federation.story import LINEAGE, Story
from tests.unit.federation.test_machine import Journal


class Pictured(Journal):
    """Pictures are begun and taken in steps while records land; each must be the state of the moment it was begun."""

    def __init__(self) -> None:
        self.log: list[tuple[int, list[AnyRecord]]] = []
        self.dump: Dump | None = None
        self.began: dict[str, Any] = {}
        self.began_seq = 0
        self.shards: list[NamedShard] = []
        super().__init__()

    def _land(self, records: list[AnyRecord]) -> None:
        super()._land(records)
        self.log.append((self.seq, records))

    @precondition(lambda self: self.dump is None)
    @rule()
    def begin(self) -> None:
        self.dump = Dump(self.state)
        self.began = copy.deepcopy(facts(self.state))
        self.began_seq = self.seq

    @precondition(lambda self: self.dump is not None)
    @rule(items=st.sampled_from([1, 2, 5, 100]))
    def step(self, items: int) -> None:
        assert self.dump is not None
        self.shards += self.dump.step(items)
        if self.dump.done:
            self._compare()
            self.dump, self.shards = None, []

    def _compare(self) -> None:
        state = loaded(self.state.lineage, self.shards)
        assert facts(state) == self.began
        for seq, records in self.log:
            for index, record in enumerate(records):
                if seq > self.began_seq:
                    state.apply(Position(position(seq, index)), record)
        check(state)
        assert facts(state) == facts(self.state)

    def teardown(self) -> None:
        assert facts(loaded(self.state.lineage, shards_of(self.follower))) == facts(self.follower)


TestPictured = Pictured.TestCase
TestPictured.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)


def lives() -> Story:
    """Groups in every phase, an old fence, a queue with a quota."""
    story = Story()
    story.cluster("a", "b", labels={"region": "eu"})
    story.record(QueueApplied(name="research", weight=2, gpu_quota={"A100": 64}, disconnect_policy="HoldInPlace"))
    names = ["waits", "placed", "runs", "refused", "ended", "cancelled", "displaced"]
    uids = {name: story.submit(name, labels={"team": name}, queue="research", grace_s=5) for name in names}
    for name in ("placed", "runs", "refused", "ended", "displaced"):
        story.place(uids[name], "b" if name == "displaced" else "a")
    story.bound(uids["runs"])
    story.gave_up(uids["refused"], "Refused", reasons=("NO_ROOM",))
    story.gave_up(uids["ended"], "Finished", succeeded=True)
    story.intend(uids["cancelled"], "cancel")
    story.fenced("b", 2)
    story.fence_done("b", 2, 30)
    return story


def test_a_state_comes_back_from_its_shards_with_every_order_kept() -> None:
    story = lives()
    again = loaded(LINEAGE, shards_of(story.state))
    check(again)
    assert facts(again) == facts(story.state)
    assert again.history(story.state.pending[0][2]) == story.state.history(story.state.pending[0][2])
    assert {row.phase.value for row in again.groups.values()} == {
        "Pending",
        "Placed",
        "Bound",
        "Succeeded",
        "Cancelled",
    }


def test_equal_states_make_equal_shards_however_they_came_about() -> None:
    story = lives()
    again = loaded(LINEAGE, shards_of(story.state))
    assert shards_of(again) == shards_of(story.state)


@pytest.mark.parametrize("limit", [1, 300, 2_000])
def test_shards_are_closed_at_their_size_and_make_the_same_state(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dump_module, "SHARD_RAW_BYTES", limit)
    story = lives()
    shards = shards_of(story.state)
    assert len({shard.name for shard in shards}) == len(shards)
    for shard in shards:
        held = decode_shard(shard.payload, shard.name)
        if held.kind == "groups":
            last = stored.decode_groups(stored.items_of(held))[-1]
            assert len(held.body) - len(stored.encode_item(last)) < limit
    assert facts(loaded(LINEAGE, shards)) == facts(story.state)


def test_a_picture_that_misses_a_change_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison above can fail: without copying what is about to change, the picture is of no moment at all."""
    monkeypatch.setattr(Dump, "group_changes", lambda self, row: None)
    story = lives()
    before = facts(loaded(LINEAGE, shards_of(story.state)))
    dump = Dump(story.state)
    story.intend(story.state.pending[0][2], "suspend")
    shards: list[NamedShard] = []
    while not dump.done:
        shards += dump.step(1)
    assert facts(loaded(LINEAGE, shards)) != before


def test_a_home_that_ends_before_anything_is_taken_makes_no_shard_that_cannot_be_read() -> None:
    """Its cluster's ends are taken early, before the clusters: with more queues than a step takes, that comes true."""
    story = lives()
    before = copy.deepcopy(facts(story.state))
    dump = Dump(story.state)
    story.gave_up(story.state.names["default", "runs"], "Released")
    shards: list[NamedShard] = []
    while not dump.done:
        shards += dump.step(1)
    kinds = [decode_shard(shard.payload, shard.name).kind for shard in shards]
    assert kinds.index(Kind.ENDED) < kinds.index(Kind.CLUSTERS)
    assert facts(loaded(LINEAGE, shards)) == before


def test_a_cluster_that_leaves_and_joins_again_meanwhile_keeps_its_ends_in_the_picture() -> None:
    story = lives()
    story.fenced("a", 2)
    story.confirmed_dead("a")
    before = copy.deepcopy(facts(story.state))
    dump = Dump(story.state)
    story.record(ClusterRemoved(cluster="a"))
    story.cluster("a")
    story.place(uid := story.submit("later"), "a")
    story.gave_up(uid, "Released")
    shards: list[NamedShard] = []
    while not dump.done:
        shards += dump.step(1)
    assert facts(loaded(LINEAGE, shards)) == before


def test_a_dump_given_up_leaves_the_state_free_for_the_next() -> None:
    story = lives()
    dump = Dump(story.state)
    dump.step(2)
    dump.give_up()
    assert facts(loaded(LINEAGE, shards_of(story.state))) == facts(story.state)


def test_tokens_and_identities_of_an_earlier_lineage_are_kept() -> None:
    story = lives()
    old = story.row(story.state.names["default", "runs"])
    state = loaded(LINEAGE, shards_of(story.state))
    state.lineage = state.lineage.__class__("0000000000009-later")
    again = loaded(state.lineage, shards_of(state))
    assert again.groups[old.uid] == old


def homeless_in_a_cluster() -> bytes:
    """A shard that says of groups which wait that their home is in `a`."""
    (waiting,) = (one for one in shards_of(lives().state) if one.name == "groups-00000")
    return encode_shard(msgspec.structs.replace(decode_shard(waiting.payload, waiting.name), cluster="a"))


@pytest.mark.parametrize(
    ("shard", "why"),
    [
        (b"\x80", "missing required field"),
        (encode_shard(Shard(stored.Kind.GROUPS, 2, b"\x90")), "at least length 34"),
        (encode_shard(Shard(stored.Kind.ENDED, 0, b"", "nowhere")), "nowhere"),
        (homeless_in_a_cluster(), "home in 'a'"),
        (encode_shard(Shard(stored.Kind.HEAD, 0, b"", schema_version=2)), "version 2"),
    ],
    ids=["no shard", "cut off", "of an unknown cluster", "without homes there", "of a later version"],
)
def test_a_shard_that_is_none_is_named(shard: bytes, why: str) -> None:
    with pytest.raises(UnreadableShardError, match=why) as caught:
        loaded(LINEAGE, [shards_of(State(LINEAGE))[0], NamedShard("groups-a-00000", shard)])
    assert caught.value.name == "groups-a-00000"


def test_a_snapshot_without_the_manifest_of_a_group_is_refused() -> None:
    shards = [shard for shard in shards_of(lives().state) if not shard.name.startswith("specs")]
    with pytest.raises(UnreadableShardError, match="a group is there"):
        loaded(LINEAGE, shards)


def test_every_field_of_a_row_is_stored() -> None:
    """A field added to a row and not to its stored form would be lost by the next restart."""
    of_groups = stored.StoredGroup.__struct_fields__
    assert GroupRow.__struct_fields__ == (*of_groups, "charge")
    assert {field.name for field in fields(ClusterRow)} - {"homes", "tokens", "resizes", "ended"} == set(
        stored.StoredCluster.__struct_fields__
    )
    assert [field.name for field in fields(QueueRow)] == list(stored.StoredQueue.__struct_fields__)
    made_anew = {
        "names",
        "beside",
        "names_ended",
        "spreads",
        "_waiting",
        "_arrived",
        "small",
        "crowded",
        "keeper",
        "_classes",
        "_class_of_key",
        "lineage",
    }
    until_recovered = {"restored", "restored_again"}  # meanwhile no snapshot is taken
    in_shards = {
        "head",
        "clock_ms",
        "recovering_since",
        "groups",
        "clusters",
        "queues",
        "requests",
        "finished",
        "specs",
        "leaving",
        "leaving_bytes",
        "parts",
        "parts_count",
    }
    assert set(vars(State())) == made_anew | until_recovered | in_shards


def test_a_later_version_may_append_fields() -> None:
    item = msgspec.msgpack.encode([7, 8, 0, "new"])
    (head,) = stored.decode_heads(stored.items_of(Shard(stored.Kind.HEAD, 1, item)))
    assert (head.head, head.clock_ms) == (7, 8)


def test_the_history_of_a_group_stays_within_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    story = lives()
    uid = story.state.names["default", "runs"]
    row = story.row(uid)
    monkeypatch.setattr("federation.core.books.HISTORY_BYTES_MAX", len(row.history_packed) + 60)
    token = story.token(uid)
    story.record(GaveUp(uid=uid, token=token, cluster="a", verdict="Finished", late=True))
    assert [type(line.record).__name__ for line in row.history] == ["Submitted", "Bound", "GaveUp"]
    assert row.history_cut == 1


GOLDEN = Path(__file__).parents[2] / "golden" / "state" / "v1-shards.bin"


def test_the_state_that_the_first_version_stored_loads_for_ever() -> None:
    shards = [NamedShard(*named) for named in msgspec.msgpack.decode(GOLDEN.read_bytes(), type=list[tuple[str, bytes]])]
    state = loaded(LINEAGE, shards)
    check(state)
    assert {row.name: row.phase.value for row in state.groups.values()} == {
        "waits": "Pending",
        "placed": "Placed",
        "runs": "Bound",
        "refused": "Pending",
        "ended": "Succeeded",
        "cancelled": "Cancelled",
        "displaced": "Pending",
    }
    runs = state.groups[state.names["default", "runs"]]
    assert [type(line.record).__name__ for line in runs.history] == ["Submitted", "Placed", "Bound"]
    assert (runs.labels, runs.queue, runs.grace_s, runs.request.pods) == ({"team": "runs"}, "research", 5, 1)
    assert state.queues["research"].gpu_quota == {"A100": 64}  # type: ignore[index]
    assert (state.clusters["a"].admitted, state.clusters["b"].admitted) == (True, False)  # type: ignore[index]
    assert len(state.requests) == 7
    assert len(state.finished) == 2


def test_the_state_that_format_2_stored_loads_for_ever() -> None:
    golden = GOLDEN.with_name("v2-shards.bin").read_bytes()
    shards = [NamedShard(*named) for named in msgspec.msgpack.decode(golden, type=list[tuple[str, bytes]])]
    state = loaded(LINEAGE, shards)
    check(state)
    assert [row.name for row in state.leaving.values()] == ["e"]
    assert [(part.part, part.count, len(part.digest)) for part in state.parts] == [(1, 4, 32)]
    assert state.parts_count == 1


def test_a_step_ends_once_it_has_made_a_few_shards_whatever_it_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dump_module, "SHARD_RAW_BYTES", 1)
    story = lives()
    dump = Dump(story.state)
    made = []
    while not dump.done:
        made.append(len(dump.step(1_000)))
    assert max(made) == dump_module.SHARDS_PER_STEP
    assert len(made) > 5


def test_a_group_that_came_or_went_changes_hardly_any_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the next snapshot need not store again: counted for 400 groups in small shards."""
    monkeypatch.setattr(dump_module, "SHARD_CUT_FROM", 1_000)
    monkeypatch.setattr(dump_module, "SHARD_CUT_SHARE", 4)
    monkeypatch.setattr(dump_module, "SHARD_RAW_BYTES", 8_000)
    state = State(LINEAGE)
    records = [
        msgspec.structs.replace(SUBMITTED, name=f"g-{number}", request_id=f"r-{number}", body_digest=f"{number:032}")
        for number in range(400)
    ]
    for number, record in enumerate(records):
        state.apply(Position(position(number + 1)), record)
    before = {shard.payload for shard in shards_of(state)}
    uid = state.names["default", "g-100"]
    state.apply(Position(position(401)), IntentSet(uid=uid, intent="suspend"))
    state.apply(Position(position(402)), msgspec.structs.replace(SUBMITTED, name="new", request_id="r-new"))
    after = [shard.payload for shard in shards_of(state)]
    assert len(after) > 100
    assert len([payload for payload in after if payload not in before]) <= 8


SUBMITTED = Submitted(
    name="",
    namespace="default",
    queue="default",
    priority=0,
    request_id="",
    body_digest="f" * 32,
    roles=(),
    min_count=1,
    disruption_mode="all",
    disconnect_policy="StopAndMove",
    grace_s=30,
    spec=b"s" * 300,
)
