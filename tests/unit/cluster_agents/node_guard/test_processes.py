"""Which processes are of which container, and that only those are signalled."""

import os
import signal
import threading
from pathlib import Path

import pytest

from cluster_agents.node_guard.processes import Process, of_containers, send
from tests.unit.cluster_agents.node_guard.children import NAMED, Children, Proc, container_id, end_of, killed_by_us

A, B = container_id("a"), container_id("b")


def test_the_processes_of_a_container_are_found_and_which_of_them_nobody_of_it_started(
    children: Children, proc: Proc
) -> None:
    root, child, other, stranger = (children.start() for _ in range(4))
    proc.put(root, A, parent=1)
    proc.put(child, A, parent=root.pid)
    proc.put(other, B, parent=root.pid)
    proc.put(stranger, container_id("c"))
    found = {one.pid: (one.container, one.root) for one in of_containers({A, B}, proc.folder)}
    assert found == {root.pid: (A, True), child.pid: (A, False), other.pid: (B, True)}


@pytest.mark.parametrize(
    "cgroup",
    [
        f"0::/system.slice/cri-containerd-{A}.scope\n",
        f"12:memory:/kubepods/pod1/{A}\n0::/\n",
        f"0::/../{A}/init.scope\n",
        f"0::/kubepods/pod1/{A}/docker/{container_id('c')}\n",
    ],
    ids=["systemd", "version 1", "a namespace of its own", "a container within"],
)
def test_whatever_places_the_control_group_the_id_is_found(children: Children, proc: Proc, cgroup: str) -> None:
    child = children.start()
    proc.move(child, cgroup.encode())
    assert [(one.pid, one.container) for one in of_containers({A}, proc.folder)] == [(child.pid, A)]


def test_names_that_are_no_text_hide_nobody_and_stop_nobody(children: Children, proc: Proc) -> None:
    """A process calls itself what it likes, and a name of wide letters is cut off within one."""
    root, child, odd = (children.start() for _ in range(3))
    proc.put(root, A, name="あいうえお訓練".encode()[:15] + b") R 7 (\xff")
    proc.put(child, A, parent=root.pid, name=b"\xff\nS 1 1\n")
    proc.put(odd, f"{A}/\xff\xfe")
    proc.move(odd, f"0::/kubepods/{A}/".encode() + b"\xff\xfe\n")
    found = {one.pid: one.root for one in of_containers({A}, proc.folder)}
    assert found == {root.pid: True, child.pid: False, odd.pid: True}


def test_a_process_that_names_itself_so_is_found_by_the_kernels_own_text(children: Children, proc: Proc) -> None:
    child = children.start(*NAMED)
    proc.put(child, A)
    stat, real = proc.folder / str(child.pid) / "stat", Path(f"/proc/{child.pid}/stat")
    stat.unlink()
    stat.symlink_to(real)
    assert b"(\xe3\x81 \xff)" in real.read_bytes()
    assert of_containers({A}, proc.folder) == [Process(child.pid, A, root=True)]


def test_a_process_that_ends_while_it_is_looked_at_is_none(children: Children, proc: Proc) -> None:
    gone, halfway = children.start(), children.start()
    proc.put(gone, A)
    (proc.folder / str(gone.pid) / "cgroup").unlink()
    proc.put(halfway, A)
    (proc.folder / str(halfway.pid) / "stat").write_bytes(b"")
    assert [one.pid for one in of_containers({A}, proc.folder)] == [halfway.pid]


def test_what_cannot_be_read_is_not_taken_for_ended(children: Children, proc: Proc) -> None:
    """A guard without file descriptors would else find that nothing runs."""
    child = children.start()
    proc.put(child, A)
    (proc.folder / str(child.pid) / "cgroup").unlink()
    (proc.folder / str(child.pid) / "cgroup").mkdir()
    with pytest.raises(IsADirectoryError):
        of_containers({A}, proc.folder)


def test_a_process_of_the_container_gets_the_signal(children: Children, proc: Proc) -> None:
    child = children.start()
    proc.put(child, A)
    assert send(Process(child.pid, A, root=True), signal.SIGTERM, proc.folder)
    assert end_of(child) == -signal.SIGTERM


def test_a_process_that_is_no_longer_of_the_container_gets_none(children: Children, proc: Proc) -> None:
    child = children.start()
    proc.put(child, A)
    (found,) = of_containers({A}, proc.folder)
    proc.put(child, B)  # another has its number by now
    assert not send(found, signal.SIGTERM, proc.folder)
    assert killed_by_us(child)


def test_one_that_has_ended_is_no_error(children: Children, proc: Proc) -> None:
    child = children.start()
    proc.put(child, A)
    assert killed_by_us(child)
    assert not send(Process(child.pid, A, root=True), signal.SIGTERM, proc.folder)


def test_a_number_that_is_a_threads_by_now_is_no_error(proc: Proc) -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert thread.native_id is not None
        assert thread.native_id != os.getpid()
        assert not send(Process(thread.native_id, A, root=True), signal.SIGTERM, proc.folder)
    finally:
        done.set()
        thread.join()
