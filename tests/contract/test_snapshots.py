"""Snapshots, floors, collection and the archive over every store: what the pure cores ask for, real stores do."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.archive import archived_name
from storage.blob import BlobStore
from storage.entry import entry_name
from storage.open import open_store
from storage.snapshot import seq_of_part
from storage.snapshot_reader import SnapshotGone
from storage.snapshot_writer import End
from storage.verify import expect_no_hole, verify
from tests.contract.stores import ADDRESSES
from tests.servers.kinds import Servers
from tests.unit.storage.snapshotting import ENTRIES, Snapshotting

LARGE = bytes(range(256)) * 3_000
"""Three quarters of a MiB that packs well, as shards do."""


@pytest.fixture(params=sorted(ADDRESSES))
def store(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> Iterator[BlobStore]:
    opened = open_store(ADDRESSES[request.param](servers, tmp_path))
    yield opened
    opened.close()


def test_a_snapshot_is_written_read_taken_over_and_collected(store: BlobStore) -> None:
    bench = Snapshotting(store)
    first = bench.writer(3)
    bench.write(first, [b"head", LARGE, b"groups"])
    assert first.end is End.DONE
    before = bench.root.snapshot
    assert before is not None
    assert bench.read(before) == [b"head", LARGE, b"groups"]

    second = bench.writer(9, gc_floor=6)
    bench.write(second, [b"head again", LARGE[::-1]])
    assert second.end is End.DONE
    bench.collect(bench.collector(second, archive=True))
    gone = bench.read(before)
    assert isinstance(gone, SnapshotGone)
    assert bench.read(gone.pointer) == [b"head again", LARGE[::-1]]

    assert [seq for seq in range(1, ENTRIES + 1) if store.get(entry_name(seq)) is not None] == [7, 8, 9, 10, 11, 12]
    assert all(store.get(archived_name(seq)) is not None for seq in range(1, 7))
    assert {seq_of_part(name) for name in store.list("snapshot/")} == {9}
    verified = verify(store)
    assert (verified.bad, verified.entry_count, verified.archived_count, verified.shard_count) == (None, 12, 6, 2)
    expect_no_hole(store)
