"""What the directory store does with files, one durable step per method: the seam where tests see and break each step.

Nothing here knows of blobs, names or versions.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FILE_MODE: Final = 0o600
"""Manifests may hold secrets of their submitters."""
_FOLDER_MODE: Final = 0o700


@dataclass(frozen=True, slots=True)
class Item:
    """One thing in a folder."""

    name: str
    is_folder: bool


class Files:
    """The file system as it is. Every method raises OSError when it fails, and nothing else."""

    def write(self, path: Path, data: bytes) -> None:
        """Make a new file whose bytes are on the disk when this returns; the name may not be there after a crash."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def link(self, path: Path, name: Path) -> None:
        """Give a file one more name, or fail because the name is taken: the one atomic create that NFS has too."""
        os.link(path, name)

    def rename(self, path: Path, name: Path) -> None:
        """Let `name` be this file from now on, whatever it was."""
        path.rename(name)

    def remove(self, path: Path) -> None:
        """Take a file's name away; absent is fine."""
        path.unlink(missing_ok=True)

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def make_folder(self, path: Path) -> None:
        """Make one folder; there already is fine."""
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=_FOLDER_MODE)

    def remove_folder(self, path: Path) -> None:
        """Remove an empty folder."""
        path.rmdir()

    def sync_folder(self, path: Path) -> None:
        """Put the names in a folder on the disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def items(self, path: Path) -> list[Item]:
        """List a folder, in no order; an absent one is empty."""
        try:
            with os.scandir(path) as found:
                return [Item(entry.name, entry.is_dir()) for entry in found]
        except FileNotFoundError:
            return []

    @contextlib.contextmanager
    def try_lock(self, path: Path, *, folder: bool = False) -> Iterator[bool]:
        """Hold a lock for the block; yields False when another has it."""
        descriptor = self.take_lock(path, folder=folder)
        try:
            yield descriptor is not None
        finally:
            if descriptor is not None:
                self.release_lock(descriptor)

    def take_lock(self, path: Path, *, folder: bool = False) -> int | None:
        """Lock a folder, or a file that is made where absent, until `release_lock` or the end of this process.

        None when another holder has it.
        """
        flags = os.O_RDONLY | os.O_DIRECTORY if folder else os.O_RDWR | os.O_CREAT
        descriptor = os.open(path, flags | os.O_CLOEXEC, _FILE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def release_lock(self, descriptor: int) -> None:
        os.close(descriptor)
