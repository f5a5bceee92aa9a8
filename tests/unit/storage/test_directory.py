"""What only the directory store promises: the order of syncs, honest answers from a bad disk, several processes."""

import errno
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import storage.backends.directory
from storage.backends.directory import NAME_PART_BYTES_MAX, DirectoryStore
from storage.backends.files import Files
from storage.blob import Blob, BlobName, Outcome, Version, Written
from storage.errors import CorruptError, LimitError, UnavailableError, UnsupportedFormatError

NAME = BlobName("leases/l/c-1")
ROOT = Path(__file__).resolve().parents[3]


class Watched(Files):
    """Writes down every step, and fails the one it is told to."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.steps: list[str] = []
        self.failing: dict[str, int] = {}

    def step(self, what: str, path: Path) -> None:
        place = path.relative_to(self.top).as_posix()
        self.steps.append(f"{what} {'new' if place.startswith('writing/') else place}")
        if what in self.failing:
            raise OSError(self.failing[what], errno.errorcode[self.failing[what]])

    def write(self, path: Path, data: bytes) -> None:
        self.step("write and sync", path)
        super().write(path, data)

    def link(self, path: Path, name: Path) -> None:
        self.step("link to", name)
        super().link(path, name)

    def rename(self, path: Path, name: Path) -> None:
        self.step("rename to", name)
        super().rename(path, name)

    def remove(self, path: Path) -> None:
        self.step("remove", path)
        super().remove(path)

    def make_folder(self, path: Path) -> None:
        self.step("make", path)
        super().make_folder(path)

    def sync_folder(self, path: Path) -> None:
        self.step("sync", path)
        super().sync_folder(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def files(path: Path) -> Watched:
    path.mkdir()
    return Watched(path)


@pytest.fixture
def store(path: Path, files: Watched) -> Iterator[DirectoryStore]:
    opened = DirectoryStore(path, files=files)
    files.steps.clear()
    yield opened
    opened.close()


def written(store: DirectoryStore, data: bytes, name: BlobName = NAME) -> Version:
    answer = store.create(name, data)
    assert answer.outcome is Outcome.DONE
    assert answer.version is not None
    return answer.version


def test_a_create_is_on_the_disk_before_it_has_its_name_and_its_name_before_the_answer(
    store: DirectoryStore, files: Watched
) -> None:
    written(store, b"one")
    assert files.steps == [
        "make blobs",
        "sync .",
        "make blobs/leases",
        "sync blobs",
        "make blobs/leases/l",
        "sync blobs/leases",
        "write and sync new",
        "link to blobs/leases/l/c-1.blob",
        "remove new",
        "sync blobs/leases/l",
    ]


def test_a_second_create_in_a_folder_does_not_sync_what_is_above_it(store: DirectoryStore, files: Watched) -> None:
    written(store, b"one")
    files.steps.clear()
    written(store, b"two", BlobName("leases/l/c-2"))
    assert files.steps == [
        "write and sync new",
        "link to blobs/leases/l/c-2.blob",
        "remove new",
        "sync blobs/leases/l",
    ]


def test_a_folder_made_by_another_is_synced_too_since_its_maker_may_have_died_before(
    store: DirectoryStore, files: Watched, path: Path
) -> None:
    (path / "blobs" / "leases").mkdir()
    written(store, b"one", BlobName("leases/c-1"))
    assert files.steps.index("sync blobs") < files.steps.index("link to blobs/leases/c-1.blob")


def test_a_replace_is_on_the_disk_before_it_takes_the_name(store: DirectoryStore, files: Watched) -> None:
    version = written(store, b"one")
    files.steps.clear()
    assert store.replace(NAME, b"two", version).outcome is Outcome.DONE
    assert files.steps == [
        "write and sync new",
        "rename to blobs/leases/l/c-1.blob",
        "remove new",
        "sync blobs/leases/l",
    ]


def test_a_deletion_is_on_the_disk_before_it_is_answered(store: DirectoryStore, files: Watched) -> None:
    written(store, b"one")
    files.steps.clear()
    store.delete(NAME)
    assert files.steps == ["remove blobs/leases/l/c-1.blob", "sync blobs/leases/l"]


def test_what_is_shown_to_a_reader_is_on_the_disk_first(store: DirectoryStore, files: Watched) -> None:
    written(store, b"one")
    files.steps.clear()
    assert store.get(NAME) is not None
    assert files.steps == ["sync blobs/leases/l"]


@pytest.mark.parametrize("step", ["write and sync", "link to"])
@pytest.mark.parametrize(
    ("error", "why"),
    [
        (errno.ENOSPC, "ENOSPC: free some space; nothing is lost, and it goes on by itself"),
        (errno.EDQUOT, "EDQUOT: free some space; nothing is lost, and it goes on by itself"),
        (errno.EIO, "EIO: the disk failed; look at the kernel's log before you go on"),
    ],
    ids=["disk full", "quota reached", "disk broken"],
)
def test_a_create_that_the_disk_refuses_is_unknown_says_why_and_leaves_nothing(
    store: DirectoryStore, files: Watched, path: Path, step: str, error: int, why: str
) -> None:
    kept = written(store, b"kept", BlobName("leases/l/c-0"))
    files.failing[step] = error
    answer = store.create(NAME, b"one")
    assert (answer.outcome, answer.why) == (Outcome.UNKNOWN, why)
    assert store.get(NAME) is None
    assert store.get(BlobName("leases/l/c-0")) == Blob(b"kept", kept)
    files.failing.clear()
    assert store.get(NAME) is None
    assert store.create(NAME, b"one").outcome is Outcome.DONE
    assert list((path / "writing").glob("*/*")) == []


@pytest.mark.parametrize("step", ["write and sync", "rename to"])
def test_a_replace_that_the_disk_refuses_leaves_what_was_there(
    store: DirectoryStore, files: Watched, step: str
) -> None:
    version = written(store, b"one")
    files.failing[step] = errno.ENOSPC
    assert store.replace(NAME, b"two", version) == Written(Outcome.UNKNOWN)
    assert store.get(NAME) == Blob(b"one", version)
    files.failing.clear()
    assert store.replace(NAME, b"two", version).outcome is Outcome.DONE


def test_what_may_not_be_on_the_disk_is_not_shown_until_it_is(store: DirectoryStore, files: Watched) -> None:
    written(store, b"kept", BlobName("leases/l/c-0"))
    files.failing["sync"] = errno.EIO
    assert store.create(NAME, b"one") == Written(Outcome.UNKNOWN)
    with pytest.raises(UnavailableError, match="the disk failed"):
        store.get(NAME)
    files.failing.clear()
    blob = store.get(NAME)
    assert blob is not None
    assert blob.data == b"one"


def test_a_half_written_file_never_gets_a_name(store: DirectoryStore, path: Path) -> None:
    class Torn(Files):
        def write(self, path: Path, data: bytes) -> None:
            path.write_bytes(data[:10])
            raise OSError(errno.ENOSPC, "No space left on device")

    store._files = Torn()
    assert store.create(NAME, bytes(100)) == Written(Outcome.UNKNOWN)
    assert [place.name for place in path.rglob("*.blob")] == []
    assert list((path / "writing").glob("*/*")) == []


def test_blobs_and_versions_survive_closing(path: Path) -> None:
    store = DirectoryStore(path)
    version = written(store, b"one")
    store.close()
    again = DirectoryStore(path)
    assert again.get(NAME) == Blob(b"one", version)
    assert again.replace(NAME, b"two", version).outcome is Outcome.DONE
    again.close()


def test_two_openers_see_one_another(path: Path) -> None:
    first, second = DirectoryStore(path), DirectoryStore(path)
    version = written(first, b"one")
    assert second.create(NAME, b"two") == Written(Outcome.REFUSED)
    assert second.replace(NAME, b"two", version).outcome is Outcome.DONE
    assert first.replace(NAME, b"three", version) == Written(Outcome.REFUSED)
    first.close()
    second.close()


@pytest.mark.long
def test_several_processes_lose_no_increment(path: Path) -> None:
    store = DirectoryStore(path)
    written(store, b"0")
    program = (
        "import sys; from pathlib import Path; from storage.backends.directory import DirectoryStore\n"
        f"store = DirectoryStore(Path(sys.argv[1])); done = 0\n"
        "while done < 50:\n"
        f"    blob = store.get({NAME!r})\n"
        f"    answer = store.replace({NAME!r}, b'%d' % (int(blob.data) + 1), blob.version)\n"
        "    done += answer.outcome.value == 'done'\n"
    )
    writers = [subprocess.Popen((sys.executable, "-c", program, str(path)), cwd=ROOT) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    blob = store.get(NAME)
    assert blob is not None
    assert blob.data == b"150"
    store.close()


def test_a_replace_behind_a_holder_that_stands_still_is_unknown_and_says_so(
    store: DirectoryStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = written(store, b"one")
    monkeypatch.setattr(storage.backends.directory, "LOCK_WAIT_S", 0.0)
    locks = [Files().take_lock(path / "locks" / f"{number:02d}") for number in range(64)]
    answer = store.replace(NAME, b"two", version)
    assert answer == Written(Outcome.UNKNOWN)
    assert answer.why == "another process has held its lock for 0 s"
    assert store.get(NAME) == Blob(b"one", version)
    for lock in locks:
        assert lock is not None
        Files().release_lock(lock)
    assert store.replace(NAME, b"two", version).outcome is Outcome.DONE


def test_what_a_dead_writer_left_is_cleared_and_a_living_one_is_left_alone(path: Path) -> None:
    living = DirectoryStore(path)
    (living._writing / "1").write_bytes(b"being written")
    dead = path / "writing" / "0123"
    dead.mkdir()
    (dead / "1").write_bytes(b"left")
    store = DirectoryStore(path)
    assert not dead.exists()
    assert (living._writing / "1").exists()
    living._writing.joinpath("1").unlink()
    living.close()
    store.close()
    assert list((path / "writing").iterdir()) == []


def test_openers_that_come_at_the_same_time_all_get_in(path: Path) -> None:
    opened: list[DirectoryStore] = []
    threads = [threading.Thread(target=lambda: opened.append(DirectoryStore(path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [store.create(BlobName(f"b/{n}"), b"").outcome for n, store in enumerate(opened)] == [Outcome.DONE] * 8
    for store in opened:
        store.close()


def test_a_store_that_another_opener_marks_meanwhile_is_opened(path: Path) -> None:
    class Overtaken(Files):
        def read(self, path: Path) -> bytes:
            try:
                return super().read(path)
            finally:
                if not path.exists():
                    DirectoryStore(path.parent).close()

    store = DirectoryStore(path, files=Overtaken())
    assert store.create(BlobName("b/0"), b"").outcome is Outcome.DONE
    store.close()


def test_a_folder_with_anything_else_in_it_is_left_alone(path: Path) -> None:
    path.mkdir()
    (path / "letter").write_text("to somebody")
    with pytest.raises(UnavailableError, match="it is no store and not empty \\(it holds 'letter'\\)"):
        DirectoryStore(path)
    assert [place.name for place in path.iterdir()] == ["letter"]


def test_a_folder_of_a_later_format_is_not_opened(path: Path) -> None:
    DirectoryStore(path).close()
    (path / "MUSTER-STORE").write_text("2\n")
    with pytest.raises(UnsupportedFormatError):
        DirectoryStore(path)


def test_a_begun_folder_whose_maker_died_is_finished(path: Path) -> None:
    (path / "blobs").mkdir(parents=True)
    store = DirectoryStore(path)
    written(store, b"one")
    store.close()


def test_a_path_that_is_a_file_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UnavailableError, match="Not a directory"):
        DirectoryStore(tmp_path / "file")


def test_a_cut_file_is_reported_as_corrupt_never_read(store: DirectoryStore, path: Path) -> None:
    written(store, b"0123456789")
    place = path / "blobs" / "leases" / "l" / "c-1.blob"
    place.write_bytes(place.read_bytes()[:-1])
    with pytest.raises(CorruptError, match="holds 9 of 10 bytes"):
        store.get(NAME)
    place.write_bytes(b"")
    with pytest.raises(CorruptError, match="does not begin like a blob"):
        store.get(NAME)


@pytest.mark.parametrize(
    "name", ["a", "a/b", "a.blob", "a.blob/b", "..", "../x", "a//b", "/a", "a/", "%2F", "é/ü", "."]
)
def test_any_name_is_one_file_inside_the_store(store: DirectoryStore, path: Path, name: str) -> None:
    written(store, name.encode(), BlobName(name))
    (place,) = path.rglob("*.blob")
    assert place.is_file()
    assert place.resolve().is_relative_to(path / "blobs")
    assert list(store.list("")) == [name]


def test_a_name_too_long_for_file_systems_is_refused_as_a_limit(store: DirectoryStore) -> None:
    written(store, b"", BlobName("a/" + "x" * NAME_PART_BYTES_MAX))
    with pytest.raises(LimitError):
        store.create(BlobName("a/" + "x" * (NAME_PART_BYTES_MAX + 1)), b"")


def test_a_closed_store_answers_nothing(path: Path) -> None:
    store = DirectoryStore(path)
    store.close()
    store.close()
    assert store.create(NAME, b"one") == Written(Outcome.UNKNOWN)
    with pytest.raises(UnavailableError, match="the store is closed"):
        store.get(NAME)
