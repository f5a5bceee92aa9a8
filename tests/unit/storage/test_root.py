"""The root of a journal as stored."""

from pathlib import Path

import pytest

from storage.errors import CorruptError, UnsupportedFormatError
from storage.root import FORMAT, Root, SnapshotPointer, decode_root, encode_root, new_lineage

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "journal"


def test_a_root_reads_back() -> None:
    root = Root(format=1, lineage="l", nonce="n", snapshot=SnapshotPointer(9, 2, bytes(32)), gc_floor=8)
    assert decode_root(encode_root(root)) == root


def test_later_lineages_sort_higher() -> None:
    assert new_lineage(999, "z") == "0000000000999-z"
    assert new_lineage(999, "z") < new_lineage(1_764_093_600_000, "a") < new_lineage(1_764_093_600_001, "0")


def test_fields_of_a_later_version_are_ignored() -> None:
    assert decode_root(b'{"format":1,"lineage":"l","nonce":"n","colour":"blue"}') == Root(1, "l", "n")


def test_a_later_format_is_not_read() -> None:
    with pytest.raises(UnsupportedFormatError) as caught:
        decode_root(b'{"format":%d,"anything":"else"}' % (FORMAT + 1))
    assert (caught.value.found, caught.value.known) == (str(FORMAT + 1), f"{FORMAT} and older")


def test_the_format_before_is_read_and_who_reads_no_more_than_that_refuses_the_newest() -> None:
    data = encode_root(Root(format=3, lineage="l", nonce="n"))
    assert decode_root(data, reads=3).format == 3
    with pytest.raises(UnsupportedFormatError, match="'root' has format 3; this version reads 2 and older: upgrade it"):
        decode_root(data, reads=2)
    assert decode_root(b'{"format":1,"lineage":"l","nonce":"n"}').format == 1


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b'{"format":1}', b'{"format":"one"}'])
def test_anything_unreadable_is_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptError):
        decode_root(data)


def test_a_floor_that_no_snapshot_covers_is_corrupt() -> None:
    decode_root(encode_root(Root(1, "l", "n", SnapshotPointer(9, 2, bytes(32)), gc_floor=9)))
    with pytest.raises(CorruptError):
        decode_root(encode_root(Root(1, "l", "n", SnapshotPointer(9, 2, bytes(32)), gc_floor=10)))
    with pytest.raises(CorruptError):
        decode_root(encode_root(Root(1, "l", "n", None, gc_floor=1)))


def test_roots_of_released_versions_load_forever() -> None:
    assert decode_root((GOLDEN / "v1-root-first.json").read_bytes()) == Root(1, "1764093600000-golden", "n-1")
    assert decode_root((GOLDEN / "v2-root-first.json").read_bytes()) == Root(2, "1764093600000-golden", "n-1")
    root = decode_root((GOLDEN / "v1-root.json").read_bytes())
    assert (root.lineage, root.nonce, root.gc_floor) == ("1764093600000-golden", "n-1", 3)
    assert root.snapshot is not None
    assert (root.snapshot.seq, root.snapshot.term, len(root.snapshot.digest)) == (4, 1, 32)
