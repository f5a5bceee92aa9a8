"""The note in a container's termination message."""

import os
from pathlib import Path

import pytest

from cluster_agents.core.config import GUARD_STOPPED
from cluster_agents.node_guard.notes import KEPT_BYTES_MAX, write_note


def test_the_note_comes_after_what_the_container_has_written(tmp_path: Path) -> None:
    path = tmp_path / "message"
    path.write_text("step 7")
    write_note(str(path))
    assert path.read_text() == f"step 7\n{GUARD_STOPPED}"


@pytest.mark.parametrize("size", [KEPT_BYTES_MAX, KEPT_BYTES_MAX + 1, 100_000])
def test_of_a_long_message_the_beginning_is_kept_since_a_kubelet_would_cut_the_note_off(
    tmp_path: Path, size: int
) -> None:
    path = tmp_path / "message"
    path.write_text("x" * size)
    write_note(str(path))
    assert path.read_text() == "x" * KEPT_BYTES_MAX + f"\n{GUARD_STOPPED}"


def test_no_file_is_made_and_no_link_is_followed(tmp_path: Path) -> None:
    mine, link = tmp_path / "mine", tmp_path / "link"
    mine.write_text("mine")
    link.symlink_to(mine)
    write_note(str(link))
    write_note(str(tmp_path / "none"))
    write_note("")
    assert mine.read_text() == "mine"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["link", "mine"]


@pytest.mark.parametrize("read", [False, True], ids=["nobody reads it", "somebody reads it"])
def test_a_pipe_holds_nobody_and_gets_nothing(tmp_path: Path, *, read: bool) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if read else None
    write_note(str(path))
    if reader is not None:
        assert os.read(reader, 100) == b""
        os.close(reader)
