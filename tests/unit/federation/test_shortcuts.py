"""Where the fold takes a shorter way than the plain one, both come to the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import pytest
from hypothesis import settings

from federation.core.books import DEFAULT_QUEUE, SORTED_IN_SHARE
from federation.core.events import SubmitGroup
from federation.core.invariants import check
from federation.core.records import (
    AnyRecord,
    ChildOf,
    Recreated,
    Submitted,
    SubmittedChild,
    decode_record,
    encode_record,
    encode_without_spec,
    without_spec,
)
from federation.core.state import State
from placement.model import Position
from storage.entry import position
from tests.unit.federation.pictures import facts, shards_of
from tests.unit.federation.pump import pod_group
from tests.unit.federation.story import Story
from tests.unit.federation.test_machine import Journal

CHILD = ChildOf("spread", 1, 2, 4, 2, "even")


def submitted(spec: bytes) -> Submitted:
    return Submitted(
        actor="sara",
        name="train",
        namespace="default",
        queue="default",
        priority=0,
        request_id="r-1",
        body_digest="d",
        roles=(),
        min_count=1,
        disruption_mode="all",
        disconnect_policy="StopAndMove",
        grace_s=30,
        spec=spec,
    )


def child(spec: bytes) -> SubmittedChild:
    fields = {name: getattr(submitted(spec), name) for name in Submitted.__struct_fields__}
    return SubmittedChild(**fields, child=CHILD)


@contextmanager
def unseen(story: Story) -> Iterator[None]:
    """The invariants, which look at everything, are checked once at the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.unit.federation.story.check", lambda state: None)
        yield
    check(story.state)


def submission(story: Story, name: str, priority: int) -> Submitted:
    record = story.admit(SubmitGroup(pod_group(name, priority=priority), f"submit-{name}", "sara"))
    assert isinstance(record, Submitted)
    return record


def uid_at(story: Story, record: Submitted) -> str:
    """Fold it, and say who it is."""
    return f"{story.state.lineage}.{story.record(record)}"


def recreated(spec: bytes) -> Recreated:
    return Recreated(uid="u", token="t.1", cluster="a", submitted=submitted(spec))


@pytest.mark.parametrize("length", [0, 1, 255, 256, 65_535, 65_536])
@pytest.mark.parametrize("kind", [submitted, child, recreated])
def test_a_history_keeps_a_submission_as_if_it_were_encoded_without_its_manifest(
    kind: Callable[[bytes], AnyRecord], length: int
) -> None:
    record = kind(b"x" * length)
    encoded = encode_record(record)
    assert encode_without_spec(record, encoded) == encode_record(without_spec(record))
    assert encode_without_spec(record, b"") == encode_record(without_spec(record))


def test_a_submission_that_does_not_end_with_its_manifest_is_encoded_anew() -> None:
    record = submitted(b"manifest")
    fields = msgspec.msgpack.decode(encode_record(record))
    encoded = msgspec.msgpack.encode({"kind": fields.pop("kind"), "spec": fields.pop("spec"), **fields})
    assert decode_record(encoded, Position(1)) == record
    assert encode_without_spec(record, encoded) == encode_record(without_spec(record))


def test_what_a_manifest_says_is_never_taken_for_the_end_of_the_record() -> None:
    inner = encode_record(submitted(b"inner"))
    record = submitted(inner)
    kept = encode_without_spec(record, encode_record(record))
    assert decode_record(kept, Position(1)) == submitted(b"")


@pytest.mark.parametrize("priorities", [(9,), (9, 1), (1, 9, 5)])
def test_arrivals_are_in_their_order_whether_they_are_put_in_or_sorted_in(priorities: tuple[int, ...]) -> None:
    """Of 32 that wait, the sixteenth part is two: one is put in by itself, from two on all are sorted."""
    assert SORTED_IN_SHARE == 16
    story = Story()
    early = [story.submit(f"early-{number}", priority=5) for number in range(2 * SORTED_IN_SHARE)]
    waiting = story.state.pending
    records = [submission(story, f"late-{priority}", priority) for priority in priorities]
    with unseen(story):
        late = {priority: uid_at(story, record) for priority, record in zip(priorities, records, strict=True)}
        assert [key[2] for key in waiting] == early
    after = [late[priority] for priority in (5, 1) if priority in late]
    assert [key[2] for key in story.state.pending] == [late[9], *early, *after]
    assert story.state.pending is waiting


def test_a_group_that_is_placed_before_anybody_looks_never_waits() -> None:
    story = Story()
    story.cluster("a")
    stays = story.submit("stays")
    waiting = story.state.pending
    record = submission(story, "train", 9)
    with unseen(story):
        uid = uid_at(story, record)
        story.place(uid, "a")
        assert [key[2] for key in waiting] == [stays]
    assert [key[2] for key in story.state.pending] == [stays]
    assert story.state.queues[DEFAULT_QUEUE].pending_count == 1


class Unwatched(Journal):
    """One more state, which folds what the journal has and which nobody looks at before the end."""

    def _land(self, records: list[AnyRecord]) -> None:
        if not self.seq:
            self.unwatched = State(self.state.lineage)
        super()._land(records)
        for index, record in enumerate(records):
            self.unwatched.apply(Position(position(self.seq, index)), record, encode_record(record))

    def teardown(self) -> None:
        assert facts(self.unwatched) == facts(self.state)
        assert shards_of(self.unwatched) == shards_of(self.state)


TestUnwatched = Unwatched.TestCase
TestUnwatched.settings = settings(max_examples=20, stateful_step_count=40, deadline=None)
