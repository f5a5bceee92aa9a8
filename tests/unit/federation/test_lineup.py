"""Who is as old as whom, read as a specification."""

from __future__ import annotations

import pytest

from federation.core.lineup import entry_start, pending_of
from placement.model import Position
from storage.entry import POSITIONS_PER_ENTRY, position
from tests.unit.federation.pump import started


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
    item = pending_of(row, frozenset())
    assert item.age_at == entry_start(row.submitted_at)
    assert item.age_at <= item.submitted_at == row.submitted_at
