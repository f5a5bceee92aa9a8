"""The parts of the archive of groups: every one as it was written, none missing in between."""

from __future__ import annotations

import pytest

from storage.backends.memory import MemoryStore
from storage.backup import back_up, view
from storage.blob import BlobName
from storage.errors import CorruptError
from storage.finished import check_parts, decode_part, encode_part, part_name
from storage.verify import verify
from tests.unit.storage.bench import Bench


def parts(*numbers: int) -> MemoryStore:
    store = MemoryStore()
    for number in numbers:
        store.create(part_name(number), encode_part(number, b"part %d" % number))
    return store


def test_a_part_comes_back_and_is_known_by_its_number_and_digest() -> None:
    data = encode_part(3, b"groups")
    assert decode_part(3, data) == b"groups"
    with pytest.raises(CorruptError, match="says that it is"):
        decode_part(4, data)
    with pytest.raises(CorruptError, match="digest"):
        decode_part(3, data, b"another")


def test_the_oldest_may_be_gone_and_no_other() -> None:
    assert check_parts(parts()) == 0
    assert check_parts(parts(7, 8, 9)) == 3
    with pytest.raises(CorruptError, match="it is missing") as caught:
        check_parts(parts(7, 9))
    assert caught.value.name == part_name(8)


@pytest.mark.parametrize("bad", [b"", encode_part(2, b"part 3"), encode_part(3, b"part 3")[:-1]])
def test_a_part_that_was_altered_swapped_or_cut_off_is_named(bad: bytes) -> None:
    store = parts(2)
    store.create(part_name(3), bad)
    with pytest.raises(CorruptError) as caught:
        check_parts(store)
    assert caught.value.name == part_name(3)


def test_verify_reads_the_archive_of_groups() -> None:
    bench = Bench()
    bench.leader("a").append(b"one")
    bench.store.create(part_name(1), encode_part(1, b"groups"))
    assert (verify(bench.store).bad, verify(bench.store).finished_count) == (None, 1)
    bench.store.create(part_name(2), encode_part(1, b"groups"))
    bad = verify(bench.store).bad
    assert isinstance(bad, CorruptError)
    assert bad.name == part_name(2)


def test_a_backup_takes_the_archive_of_groups_along() -> None:
    bench = Bench()
    bench.leader("a").append(b"one")
    bench.store.create(part_name(1), encode_part(1, b"groups"))
    place = MemoryStore()
    back_up(bench.store, place, made_ms=1)
    assert verify(view(place)).finished_count == 1
    bench.store.create(part_name(2), encode_part(2, b"more"))
    back_up(bench.store, place, made_ms=2)
    assert verify(view(place)).finished_count == 2
    assert place.get(BlobName(f"backup/{part_name(1)}")) is not None
