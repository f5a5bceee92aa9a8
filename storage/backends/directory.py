"""A store in a folder, for several servers on one machine or one shared file system: link(2) creates, flock guards.

What a reader was shown has been made durable first, so that no power failure takes back what somebody acted on.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import secrets
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from storage.backends.files import Files
from storage.blob import LIST_LIMIT, Blob, BlobName, Outcome, Version, Written
from storage.errors import CorruptError, LimitError, UnavailableError, UnsupportedFormatError

NAME_PART_BYTES_MAX: Final = 240
"""One part of a blob's name, escaped: file systems admit 255 bytes, the suffix takes its share."""
LOCK_WAIT_S: Final = 5.0
"""Replaces and deletes take milliseconds: whoever holds a lock longer is paused, and waiting helps nobody."""
LOCK_COUNT: Final = 64
"""Locks over which names are spread, so that a paused holder stops few of them."""

_FORMAT: Final = "1"
_MARKER: Final = "MUSTER-STORE"
_BLOBS: Final = "blobs"
_LOCKS: Final = "locks"
_WRITING: Final = "writing"
_SUFFIX: Final = ".blob"
_HEAD: Final = re.compile(rb"muster-blob 1 ([0-9a-f]{32}) ([0-9]{1,15})\n")
_HEAD_BYTES_MAX: Final = 64
_LOCK_POLL_S: Final = 0.001
_FOLDER_TRIES: Final = 5
"""Another opener may take a folder that is not locked yet for a dead writer's; five times running means a bug."""
_DURABLE_FOLDERS_MAX: Final = 4_096
"""Folders remembered as being on the disk; forgetting them costs a few more syncs."""


class DirectoryStore:
    """Implements `storage.blob.BlobStore` in the folder at `path`, which is made where absent.

    Several processes may open it, if their file system has link(2) and flock(2) for all of them. Raises
    UnavailableError when the folder cannot be used or holds anything else, UnsupportedFormatError for a later format.
    """

    def __init__(self, path: Path, *, files: Files | None = None) -> None:
        self._path = path
        self._files = files or Files()
        self._blobs = path / _BLOBS
        self._durable: set[Path] = set()
        self._numbers = itertools.count(1)
        self._open = False
        with self._reading("open", str(path)):
            ours = self._is_ours()
            self._make_folders()
            self._writing, self._writing_lock = self._take_writing_folder()
            if not ours:
                self._mark()
            self._files.sync_folder(path)
            self._clear_writing_folders()
        self._open = True

    def create(self, name: BlobName, data: bytes) -> Written:
        place = self._place(name)
        version, body = _body(data)
        try:
            self._expect_open()
            self._make_durable_folder(place.parent)
            with self._written(body) as temporary:
                self._files.link(temporary, place)
            self._files.sync_folder(place.parent)
        except FileExistsError:
            return Written(Outcome.REFUSED)
        except OSError as error:
            self._durable.discard(place.parent)
            return Written(Outcome.UNKNOWN, why=_why(error))
        return Written(Outcome.DONE, version)

    def replace(self, name: BlobName, data: bytes, version: Version) -> Written:
        place = self._place(name)
        new_version, body = _body(data)
        try:
            self._expect_open()
            with self._locked(name):
                found = self._read(name, place)
                if found is None or found.version != version:
                    return Written(Outcome.REFUSED)
                with self._written(body) as temporary:
                    self._files.rename(temporary, place)
                self._files.sync_folder(place.parent)
        except OSError as error:
            return Written(Outcome.UNKNOWN, why=_why(error))
        return Written(Outcome.DONE, new_version)

    def get(self, name: BlobName) -> Blob | None:
        place = self._place(name)
        with self._reading("get", name):
            self._expect_open()
            blob = self._read(name, place)
            if blob is not None:
                self._files.sync_folder(place.parent)
            return blob

    def list(self, prefix: str, start: str = "", limit: int = LIST_LIMIT) -> Sequence[BlobName]:
        with self._reading("list", prefix):
            self._expect_open()
            return list(itertools.islice(self._walk(self._blobs, "", prefix, start), limit))

    def delete(self, name: BlobName) -> None:
        place = self._place(name)
        with self._reading("delete", name):
            self._expect_open()
            with self._locked(name):
                self._files.remove(place)
                with contextlib.suppress(FileNotFoundError):
                    self._files.sync_folder(place.parent)

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        with contextlib.suppress(OSError):
            self._files.remove_folder(self._writing)
        self._files.release_lock(self._writing_lock)

    # --- one blob ---

    def _place(self, name: str) -> Path:
        *folders, leaf = name.split("/")
        parts = [_folder_name(part) for part in folders] + [_escape(leaf) + _SUFFIX]
        longest = max(len(part.removesuffix(_SUFFIX)) for part in parts)
        if longest > NAME_PART_BYTES_MAX:
            raise LimitError("bytes in one part of a blob's name", NAME_PART_BYTES_MAX, longest)
        return self._blobs.joinpath(*parts)

    def _read(self, name: str, place: Path) -> Blob | None:
        try:
            stored = self._files.read(place)
        except FileNotFoundError:
            return None
        head = _HEAD.match(stored[:_HEAD_BYTES_MAX])
        if head is None:
            raise CorruptError(name, f"{place} does not begin like a blob")
        if len(stored) != head.end() + int(head[2]):
            raise CorruptError(name, f"{place} holds {len(stored) - head.end()} of {int(head[2])} bytes")
        return Blob(stored[head.end() :], Version(head[1].decode()))

    @contextlib.contextmanager
    def _written(self, body: bytes) -> Iterator[Path]:
        """A file with these bytes on the disk, under a name that nobody reads and that is gone afterwards."""
        temporary = self._writing / str(next(self._numbers))
        try:
            self._files.write(temporary, body)
            yield temporary
        finally:
            with contextlib.suppress(OSError):
                self._files.remove(temporary)

    def _make_durable_folder(self, folder: Path) -> None:
        """Have `folder` and those above it on the disk, whoever made them: its maker may not have come so far."""
        if folder in self._durable:
            return
        chain = [place for place in (folder, *folder.parents) if place.is_relative_to(self._blobs)]
        for place in reversed(chain):
            self._files.make_folder(place)
            self._files.sync_folder(place.parent)
        if len(self._durable) >= _DURABLE_FOLDERS_MAX:
            self._durable.clear()
        self._durable.add(folder)

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Alone among all that replace or delete this name, in this process and others."""
        lock = self._path / _LOCKS / f"{zlib.crc32(name.encode()) % LOCK_COUNT:02d}"
        give_up_s = time.monotonic() + LOCK_WAIT_S
        while True:
            with self._files.try_lock(lock) as held:
                if held:
                    yield
                    return
            if time.monotonic() >= give_up_s:
                raise TimeoutError(errno.ETIMEDOUT, f"another process has held its lock for {LOCK_WAIT_S:.0f} s")
            time.sleep(_LOCK_POLL_S)

    def _walk(self, folder: Path, above: str, prefix: str, start: str) -> Iterator[BlobName]:
        """Yield names in byte order. Equivalent to sorting all of them, except that folders out of range are not read.

        A folder sorts with the slash that follows it in every name below it.
        """
        found: list[tuple[str, Path | None]] = []
        for item in self._files.items(folder):
            if item.is_folder:
                found.append((above + _part(item.name) + "/", folder / item.name))
            elif item.name.endswith(_SUFFIX):
                found.append((above + unquote(item.name.removesuffix(_SUFFIX)), None))
        for name, below in sorted(found, key=lambda pair: pair[0]):
            if below is None:
                if name.startswith(prefix) and name > start:
                    yield BlobName(name)
            elif (name.startswith(prefix) or prefix.startswith(name)) and (name > start or start.startswith(name)):
                yield from self._walk(below, name, prefix, start)

    # --- the folder as a whole ---

    def _is_ours(self) -> bool:
        """Say whether a store was begun here; raises unless this is one, or nothing yet."""
        try:
            found = self._files.read(self._path / _MARKER).decode(errors="replace").strip()
        except FileNotFoundError:
            names = {item.name for item in self._files.items(self._path)}
            if _MARKER in names:  # another opener has put it there since
                return self._is_ours()
            strange = names - {_BLOBS, _LOCKS, _WRITING}
            if strange:
                why = f"it is no store and not empty (it holds {min(strange)!r})"
                raise UnavailableError("open", str(self._path), why) from None
            return False
        if found != _FORMAT:
            raise UnsupportedFormatError(str(self._path), f"folder {found}", f"folder {_FORMAT}")
        return True

    def _make_folders(self) -> None:
        missing = [place for place in (self._path, *self._path.parents) if not place.exists()]
        for place in reversed(missing):
            self._files.make_folder(place)
            self._files.sync_folder(place.parent)
        for part in (_BLOBS, _LOCKS, _WRITING):
            self._files.make_folder(self._path / part)

    def _mark(self) -> None:
        with self._written(f"{_FORMAT}\n".encode()) as temporary:
            self._files.rename(temporary, self._path / _MARKER)

    def _take_writing_folder(self) -> tuple[Path, int]:
        """Make a folder for unfinished files and hold its lock for as long as the store is open."""
        for _ in range(_FOLDER_TRIES):
            folder = self._path / _WRITING / secrets.token_hex(8)
            self._files.make_folder(folder)
            with contextlib.suppress(FileNotFoundError):
                lock = self._files.take_lock(folder, folder=True)
                if lock is not None and folder.exists():
                    return folder, lock
                if lock is not None:
                    self._files.release_lock(lock)
        raise OSError(errno.EBUSY, f"others removed each of {_FOLDER_TRIES} folders made for writing")

    def _clear_writing_folders(self) -> None:
        """Remove what writers that died have left."""
        for item in self._files.items(self._path / _WRITING):
            folder = self._path / _WRITING / item.name
            if folder == self._writing:
                continue
            with contextlib.suppress(FileNotFoundError), self._files.try_lock(folder, folder=True) as dead:
                if dead:
                    for left in self._files.items(folder):
                        self._files.remove(folder / left.name)
                    self._files.remove_folder(folder)

    def _expect_open(self) -> None:
        if not self._open:
            raise OSError(errno.EBADF, "the store is closed")

    @contextlib.contextmanager
    def _reading(self, operation: str, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UnavailableError(operation, name, _why(error)) from error


def _body(data: bytes) -> tuple[Version, bytes]:
    """What a file holds, with a version that was never given before."""
    version = secrets.token_hex(16)
    return Version(version), b"muster-blob 1 %s %d\n" % (version.encode(), len(data)) + data


def _escape(part: str) -> str:
    return quote(part, safe="")


def _folder_name(part: str) -> str:
    """A folder's name has no dot, so that `a` and `a/b` can both be blobs, and is never empty."""
    return _escape(part).replace(".", "%2E") or "%"


def _part(folder_name: str) -> str:
    return "" if folder_name == "%" else unquote(folder_name)


def _why(error: OSError) -> str:
    """The error as an operator knows it, with the remedy where there is one."""
    said = error.strerror or str(error) or os.strerror(error.errno or errno.EIO)
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return f"{said}: free some space; nothing is lost, and it goes on by itself"
        case errno.EIO:
            return f"{said}: the disk failed; look at the kernel's log before you go on"
        case _:
            return said
