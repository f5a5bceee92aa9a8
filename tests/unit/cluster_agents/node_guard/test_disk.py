"""What a guard leaves for its next start, and what becomes of that when it cannot be read or written."""

from pathlib import Path

import pytest

from cluster_agents.node_guard.containers import Container
from cluster_agents.node_guard.disk import BYTES_MAX, NAME, Disk, Kept

KEPT = Kept(("L.1",), (Container("a" * 64, "L.1", "team/a", 5.0, "/note"),), {"a" * 64: 12.5})


def test_what_is_kept_is_there_at_the_next_start(tmp_path: Path) -> None:
    Disk(tmp_path / "new" / "folder").keep(KEPT)
    assert Disk(tmp_path / "new" / "folder").kept == KEPT


def test_of_a_start_without_an_earlier_one_nothing_is_known(tmp_path: Path) -> None:
    assert Disk(tmp_path).kept == Kept()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[1, 2]",
        b'{"hold": "L.1"}',
        b'{"hold": ["\xff"]}',
        b'{"containers": [["a", "L.1", "team/a", -1.0, ""]]}',
        b'{"containers": [["a", "L.1", "team/a", 1e300, ""]]}',
        b'{"stopping": {"a": "soon"}}',
        b'{"other": ' + b"[" * 100_000,
    ],
    ids=[
        "empty",
        "bytes",
        "cut off",
        "another document",
        "hold is no list",
        "no text",
        "grace below 0",
        "endless grace",
        "no time",
        "depth",
    ],
)
def test_a_file_that_is_none_of_ours_counts_as_nothing_and_is_replaced(tmp_path: Path, data: bytes) -> None:
    (tmp_path / NAME).write_bytes(data)
    disk = Disk(tmp_path)
    assert disk.kept == Kept()
    disk.keep(KEPT)
    assert Disk(tmp_path).kept == KEPT


def test_a_file_larger_than_a_guard_writes_counts_as_nothing(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    disk.keep(KEPT)
    with (tmp_path / NAME).open("ab") as file:
        file.truncate(BYTES_MAX + 1)
    assert Disk(tmp_path).kept == Kept()


def test_a_file_of_an_older_guard_is_read(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b'{"hold": ["L.1"], "containers": [["a", "L.1", "team/a"]]}')
    assert Disk(tmp_path).kept == Kept(("L.1",), (Container("a", "L.1", "team/a"),))


def test_what_cannot_be_written_is_written_as_soon_as_it_can(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    (tmp_path / NAME).mkdir()
    disk.keep(KEPT)
    (tmp_path / NAME).rmdir()
    disk.keep(KEPT)
    assert Disk(tmp_path).kept == KEPT


def test_what_is_kept_already_is_not_written_again(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    disk.keep(KEPT)
    (tmp_path / NAME).unlink()
    disk.keep(KEPT)
    assert not (tmp_path / NAME).exists()
