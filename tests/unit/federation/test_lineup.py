"""Who is as old as whom, read as a specification."""

from __future__ import annotations

import pytest

from federation.core.lineup import ahead_of, entry_start, pending_of
from federation.core.poison import NONE
from federation.core.records import QueueApplied
from placement.engine import order_key
from placement.explain import Ahead
from placement.model import Position
from storage.entry import POSITIONS_PER_ENTRY, position
from tests.unit.federation.pump import started
from tests.unit.federation.story import Story


@pytest.mark.parametrize(
    ("index", "start"),
    [
        pytest.param(0, 24_576, id="first of its entry"),
        pytest.param(8_191, 24_576, id="last of its entry"),
        pytest.param(8_192, 32_768, id="first of the next entry"),
    ],
)
def test_groups_are_as_old_as_the_entry_that_holds_their_submission(index: int, start: int) -> None:
    assert POSITIONS_PER_ENTRY == 8_192
    assert entry_start(Position(position(3) + index)) == start


def test_group_waits_with_those_of_its_entry() -> None:
    pump = started()
    uid = pump.submit("train")
    row = pump.group(uid)
    item = pending_of(row, frozenset(), NONE)
    assert item.age_at == entry_start(row.submitted_at)
    assert item.age_at <= item.submitted_at == row.submitted_at


def test_ahead_are_the_urgent_the_older_and_the_larger_of_the_same_entry() -> None:
    story = Story()
    story.record(QueueApplied(name="red", gpu_quota={}))
    story.submit("older", queue="red")
    with story.one_entry():
        story.submit("larger", pods=2)
        train = story.submit("train", queue="red")
        story.submit("smaller", gpus=1)
        story.submit("urgent", priority=5, gpus=1)
    story.submit("younger", pods=9)
    assert ahead_of(story.state, story.row(train)) == Ahead(3, 1)  # older, larger, urgent


def test_count_of_those_ahead_is_that_of_the_order_in_which_the_engine_decides() -> None:
    story = Story()
    for entry in range(3):
        with story.one_entry():
            for index in range(4):
                story.submit(f"g-{entry}-{index}", pods=1 + index % 3, priority=(entry + index) % 2)
    rows = list(story.state.pending_groups())
    items = [pending_of(row, frozenset(), NONE) for row in rows]
    for row, item in zip(rows, items, strict=True):
        count = sum(order_key(other) < order_key(item) for other in items)
        assert ahead_of(story.state, row) == Ahead(count, count)
