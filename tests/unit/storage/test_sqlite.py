"""What only the SQLite store promises: one opener, survival of reopening, honest answers from a bad disk."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from storage.backends.sqlite import SqliteStore
from storage.blob import Blob, BlobCreate, BlobFailed, BlobGet, BlobName, BlobWritten, OpId, Outcome, Written, perform
from storage.errors import StoreLockedError, UnavailableError, UnsupportedFormatError

NAME = BlobName("a")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "store.db"


def test_blobs_and_versions_survive_closing(path: Path) -> None:
    store = SqliteStore(path)
    version = store.create(NAME, b"one").version
    assert version is not None
    store.close()
    again = SqliteStore(path)
    assert again.get(NAME) == Blob(b"one", version)
    assert again.replace(NAME, b"two", version).outcome is Outcome.DONE
    again.close()


def test_versions_are_not_used_again_after_deletion_and_reopening(path: Path) -> None:
    store = SqliteStore(path)
    before = store.create(NAME, b"one").version
    store.delete(NAME)
    store.close()
    again = SqliteStore(path)
    assert again.create(NAME, b"one").version != before
    again.close()


def test_a_second_opener_in_another_process_is_refused_with_the_file_named(path: Path) -> None:
    store = SqliteStore(path)
    program = (
        "import sys; from pathlib import Path; from storage.backends.sqlite import SqliteStore\n"
        "from storage.errors import StoreLockedError\n"
        "try:\n    SqliteStore(Path(sys.argv[1]))\n"
        "except StoreLockedError as error:\n    print(error)"
    )
    root = Path(__file__).resolve().parents[3]
    second = subprocess.run(
        (sys.executable, "-c", program, str(path)), cwd=root, capture_output=True, text=True, check=True
    )
    assert second.stdout.startswith(f"{path} is open in another process")
    assert store.create(NAME, b"one").outcome is Outcome.DONE
    store.close()


def test_a_second_opener_in_the_same_process_is_refused_until_the_first_closes(path: Path) -> None:
    store = SqliteStore(path)
    store.create(NAME, b"one")
    with pytest.raises(StoreLockedError):
        SqliteStore(path)
    store.close()
    again = SqliteStore(path)
    assert again.get(NAME) is not None
    again.close()


def test_commits_are_durable_and_logged_ahead(path: Path) -> None:
    store = SqliteStore(path)
    assert store._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert store._connection.execute("PRAGMA locking_mode").fetchone() == ("exclusive",)
    store.close()


def test_a_database_of_another_program_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(UnavailableError, match="another program"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"a letter to somebody, longer than a header of SQLite, which has a hundred bytes. " * 3)
    with pytest.raises(UnavailableError):
        SqliteStore(path)
    assert path.read_bytes().startswith(b"a letter")


def test_a_file_of_a_later_version_is_not_opened(path: Path) -> None:
    store = SqliteStore(path)
    store._connection.execute("PRAGMA user_version = 2")
    store.close()
    with pytest.raises(UnsupportedFormatError):
        SqliteStore(path)


def test_a_folder_that_cannot_be_made_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UnavailableError):
        SqliteStore(tmp_path / "file" / "store.db")


def full_disk(path: Path) -> SqliteStore:
    """A store whose file may not grow any more."""
    store = SqliteStore(path)
    store._connection.execute("PRAGMA max_page_count = 1")  # SQLite raises it to what is in use
    return store


def test_a_write_on_a_full_disk_is_unknown_and_then_seen_absent(path: Path) -> None:
    store = full_disk(path)
    written = store.create(NAME, bytes(100_000))
    assert written == Written(Outcome.UNKNOWN)
    assert written.why.endswith("full: free some space; nothing is lost, and it goes on by itself")
    assert store.get(NAME) is None
    store._connection.execute("PRAGMA max_page_count = 1000000")
    assert store.create(NAME, bytes(100_000)).outcome is Outcome.DONE
    store.close()


def test_a_core_is_answered_unknown_or_failed_never_with_an_exception(path: Path) -> None:
    store = SqliteStore(path)
    store.close()
    assert perform(store, BlobCreate(OpId(1), NAME, b"one")) == BlobWritten(OpId(1), Outcome.UNKNOWN)
    answer = perform(store, BlobGet(OpId(2), NAME))
    assert isinstance(answer, BlobFailed)
    assert answer.op == OpId(2)
