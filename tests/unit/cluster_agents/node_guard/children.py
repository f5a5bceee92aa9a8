"""Real processes for tests to signal, and a folder that says of which containers they are."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

SLEEPS: Final = ("sleep", "600")
TRAPS: Final = ("sh", "-c", "trap '' TERM; echo up; while :; do sleep 600; done")  # asked to end, it does not
NAMED: Final = ("sh", "-c", "printf '\\343\\201 \\377' > /proc/$$/comm; echo up; while :; do sleep 600; done")
ENDS_S: Final = 60.0  # a signalled process ends at once; so long a busy machine may take to say so


def container_id(letter: str) -> str:
    return letter * 64


class Proc:
    """A folder like /proc, with those of its processes that were put there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "self").mkdir(parents=True)

    def put(self, child: subprocess.Popen[bytes], container: str, *, parent: int = 1, name: bytes = b"sleep") -> None:
        self.move(child, f"0::/kubepods/burstable/pod1/{container}\n".encode())
        stat = b"%d (%s) S %d 5 5 0 -1\n" % (child.pid, name, parent)
        (self.folder / str(child.pid) / "stat").write_bytes(stat)

    def move(self, child: subprocess.Popen[bytes], cgroup: bytes) -> None:
        (self.folder / str(child.pid)).mkdir(exist_ok=True)
        (self.folder / str(child.pid) / "cgroup").write_bytes(cgroup)

    def drop(self, child: subprocess.Popen[bytes]) -> None:
        """It has ended."""
        for file in (self.folder / str(child.pid)).iterdir():
            file.unlink()
        (self.folder / str(child.pid)).rmdir()


class Children:
    def __init__(self) -> None:
        self._all: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Running, and what it traps is trapped, when this returns."""
        child = subprocess.Popen(command or SLEEPS, stdout=subprocess.PIPE, start_new_session=True)
        self._all.append(child)
        if command in {TRAPS, NAMED}:
            assert child.stdout is not None
            assert child.stdout.readline() == b"up\n"
        return child

    def close(self) -> None:
        for child in self._all:
            if child.poll() is None:
                child.kill()
            child.wait()
            if child.stdout is not None:
                child.stdout.close()


@contextmanager
def children() -> Iterator[Children]:
    found = Children()
    try:
        yield found
    finally:
        found.close()


def end_of(child: subprocess.Popen[bytes]) -> int:
    """The signal that ended it, below 0."""
    return child.wait(ENDS_S)


def killed_by_us(child: subprocess.Popen[bytes]) -> bool:
    """It had no signal before this one."""
    child.kill()
    return end_of(child) == -9
