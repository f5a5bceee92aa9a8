"""The default store: one SQLite file, one process, every operation a durable transaction of its own.

One connection serves all threads under a lock: SQLite before 3.51.3 can corrupt a WAL written from two, and a
second process is refused by the file lock.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from storage.blob import LIST_LIMIT, Blob, BlobName, Outcome, Version, Written
from storage.errors import StoreLockedError, UnavailableError, UnsupportedFormatError

_SCHEMA_VERSION: Final = 1
_APPLICATION_ID: Final = 0x4D757374
"""'Must': marks the file as ours, so that another program's database is never written to."""
_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS blob (name TEXT NOT NULL UNIQUE, data BLOB NOT NULL, version INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS counter (write_count INTEGER NOT NULL)",
    "INSERT INTO counter SELECT 0 WHERE NOT EXISTS (SELECT * FROM counter)",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_SCHEMA_VERSION}",
)
_LAST_CHARACTER: Final = "\U0010ffff"
_LOCKED: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


class SqliteStore:
    """Implements `storage.blob.BlobStore` over the file at `path`, which is created where absent.

    Raises StoreLockedError when another opener holds it, UnavailableError when it cannot be opened at all.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            _make_folder(path.parent)
            self._connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise UnavailableError("open", str(path), str(error)) from error
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def create(self, name: BlobName, data: bytes) -> Written:
        return self._write(
            "INSERT INTO blob (name, data, version) SELECT ?, ?, write_count FROM counter WHERE true "
            "ON CONFLICT (name) DO NOTHING",
            (name, data),
        )

    def replace(self, name: BlobName, data: bytes, version: Version) -> Written:
        return self._write(
            "UPDATE blob SET data = ?, version = (SELECT write_count FROM counter) WHERE name = ? "
            "AND version = CAST(? AS INTEGER)",
            (data, name, version),
        )

    def get(self, name: BlobName) -> Blob | None:
        with self._lock, self._reading("get", name):
            row = self._connection.execute("SELECT data, version FROM blob WHERE name = ?", (name,)).fetchone()
        return None if row is None else Blob(row[0], Version(str(row[1])))

    def list(self, prefix: str, start: str = "", limit: int = LIST_LIMIT) -> Sequence[BlobName]:
        with self._lock, self._reading("list", prefix):
            rows = self._connection.execute(
                "SELECT name FROM blob WHERE name >= ? AND name < ? AND name > ? ORDER BY name LIMIT ?",
                (prefix, prefix + _LAST_CHARACTER, start, limit),
            ).fetchall()
        return [BlobName(row[0]) for row in rows]

    def delete(self, name: BlobName) -> None:
        with self._lock, self._reading("delete", name):
            self._connection.execute("DELETE FROM blob WHERE name = ?", (name,))

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _write(self, change: str, values: tuple[str | bytes, ...]) -> Written:
        """Count, change and commit as one transaction. Anything but a plain answer leaves the outcome unknown."""
        with self._lock:
            connection = self._connection
            try:
                connection.execute("BEGIN IMMEDIATE")
                row = connection.execute("UPDATE counter SET write_count = write_count + 1 RETURNING write_count")
                version = Version(str(row.fetchall()[0][0]))
                if connection.execute(change, values).rowcount != 1:
                    connection.execute("ROLLBACK")
                    return Written(Outcome.REFUSED)
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._abandon()
                return Written(Outcome.UNKNOWN, why=_why(error))
            return Written(Outcome.DONE, version)

    def _abandon(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def _reading(self, operation: str, name: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise UnavailableError(operation, name, _why(error)) from error

    def _prepare(self) -> None:
        """Take the file for this process, durable mode on, tables present. The lock lasts until `close`."""
        try:
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._connection.execute("BEGIN EXCLUSIVE")
            self._connection.execute("COMMIT")
            self._check_ours()
            (mode,) = self._connection.execute("PRAGMA journal_mode = WAL").fetchone()
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("BEGIN EXCLUSIVE")
            for statement in _SCHEMA:
                self._connection.execute(statement)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF in _LOCKED:
                raise StoreLockedError(str(self._path)) from error
            raise UnavailableError("open", str(self._path), str(error)) from error
        if mode != "wal":
            raise UnavailableError("open", str(self._path), f"its file system allows no WAL (mode {mode})")

    def _check_ours(self) -> None:
        (application,) = self._connection.execute("PRAGMA application_id").fetchone()
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        (table_count,) = self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if application != _APPLICATION_ID and table_count:
            raise UnavailableError("open", str(self._path), "it is a database of another program")
        if version > _SCHEMA_VERSION:
            raise UnsupportedFormatError(str(self._path), f"file {version}", f"{_SCHEMA_VERSION} and older")


def _why(error: sqlite3.Error) -> str:
    """The error as an operator knows it, with the remedy where there is one."""
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_FULL:
            return f"{error}: free some space; nothing is lost, and it goes on by itself"
        case sqlite3.SQLITE_IOERR:
            return f"{error}: the disk refuses to write or read; see its quota and the kernel's log"
        case _:
            return str(error)


def _make_folder(folder: Path) -> None:
    """Make `folder` so that it outlives a power failure: SQLite does as much for what it makes inside."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for place in missing:
        descriptor = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
