"""`muster store`: what it finds in a store, what it says of a damaged one, and its exit codes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from federation.core.leases import lease_name
from federation.protocol.lease import FORMAT_UNDERSTOOD
from federation.protocol.messages import LeaseBody, encode_lease
from storage.blob import BlobName, BlobStore
from storage.entry import entry_name
from storage.open import open_store
from storage.reading import read_root
from storage.root import FORMAT, ROOT_NAME, Root, encode_root
from tests.unit.cli.conftest import Muster
from tests.unit.cli.journals import journal_at, write_journal
from tests.unit.cli.stub import Stub
from tests.unit.cli.test_golden import golden


@pytest.fixture
def url(tmp_path: Path) -> str:
    return journal_at(f"sqlite:///{tmp_path}/journal.db")


def bare(text: str) -> str:
    """Without the digest: compressed specs, and so digests, differ between versions of zlib."""
    return re.sub(r"[0-9a-f]{64}", "DIGEST", text)


def change(store: BlobStore, seq: int, altered: bytes) -> None:
    store.delete(entry_name(seq))
    store.create(entry_name(seq), altered)


def read(store: BlobStore, seq: int) -> bytes:
    blob = store.get(entry_name(seq))
    assert blob is not None
    return blob.data


def flip_a_bit(store: BlobStore) -> None:
    data = bytearray(read(store, 3))
    data[len(data) // 2] ^= 0x10
    change(store, 3, bytes(data))


def drop(store: BlobStore) -> None:
    store.delete(entry_name(3))


def reorder(store: BlobStore) -> None:
    third, fourth = read(store, 3), read(store, 4)
    change(store, 3, fourth)
    change(store, 4, third)


def truncate(store: BlobStore) -> None:
    change(store, 3, read(store, 3)[:-7])


@pytest.mark.parametrize("form", ["table", "json"])
@pytest.mark.parametrize("command", ["verify", "stat", "history"])
def test_what_is_found_is_shown(muster: Muster, url: str, command: str, form: str) -> None:
    shown = muster("store", command, url, "-o", form)
    assert (shown.code, bare(shown.out), shown.err) == (0, golden(f"store-{command}-{form}"), "")


def test_a_store_that_passes_its_selftest_is_left_as_it_was(muster: Muster, url: str) -> None:
    before = muster("store", "stat", url).out
    shown = muster("store", "selftest", url)
    assert (shown.code, shown.out) == (0, "the store keeps its promises\n")
    assert json.loads(muster("store", "selftest", url, "-o", "json").out) == {
        "kind": "StoreSelftest",
        "url": url,
        "passed": True,
    }
    assert muster("store", "stat", url).out == before


@pytest.mark.parametrize("damage", [flip_a_bit, drop, reorder, truncate], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("form", ["table", "json"])
def test_the_first_bad_entry_is_named(muster: Muster, url: str, damage: Callable[[BlobStore], None], form: str) -> None:
    store = open_store(url)
    damage(store)
    store.close()
    shown = muster("store", "verify", url, "-o", form)
    assert shown.code == 1
    assert shown.err.startswith(f"error: '{entry_name(3)}' is corrupt: ")
    if form == "json":
        found = json.loads(shown.out)
        assert (found["good"], found["bad_seq"], found["entries"]) == (False, 3, 2)
    else:
        assert shown.out.splitlines()[-1] == f"verdict   bad at {entry_name(3)}"


def test_a_lost_tail_shows_in_the_digest(muster: Muster, url: str) -> None:
    whole = json.loads(muster("store", "verify", url, "-o", "json").out)
    store = open_store(url)
    store.delete(entry_name(4))
    store.close()
    shorter = json.loads(muster("store", "verify", url, "-o", "json").out)
    assert (whole["entries"], shorter["entries"]) == (4, 3)
    assert whole["head_digest"] != shorter["head_digest"]


def test_history_goes_by_position_group_and_cluster(muster: Muster, url: str) -> None:
    def kinds(*options: str) -> list[str]:
        items = json.loads(muster("store", "history", url, "-o", "json", *options).out)["items"]
        return [item["kind"] for item in items]

    assert kinds("--since", "16387") == ["Placed", "Bound"]
    assert kinds("--uid", "1800000000000-abc.16385") == ["Submitted", "Placed", "Bound"]
    assert kinds("--cluster", "c-1") == ["ClusterJoined", "ClusterFenced", "ClusterAdmitted", "Placed", "Bound"]
    assert kinds("--limit", "1") == ["ClusterJoined"]


@pytest.mark.parametrize("command", ["verify", "stat", "history", "selftest"])
def test_a_store_that_is_open_elsewhere_is_refused_with_the_way_out(muster: Muster, url: str, command: str) -> None:
    holder = open_store(url)
    shown = muster("store", command, url)
    holder.close()
    assert shown.code == 4
    assert "is open in another process" in shown.err
    assert "ask the running server" in shown.err


@pytest.mark.parametrize("command", ["verify", "stat", "history"])
def test_looking_at_a_file_that_is_not_there_makes_none(muster: Muster, tmp_path: Path, command: str) -> None:
    shown = muster("store", command, f"sqlite:///{tmp_path}/typo.db")
    assert (shown.code, "there is no such file" in shown.err) == (6, True)
    assert list(tmp_path.glob("typo*")) == []


def test_an_empty_store_holds_no_journal(muster: Muster, tmp_path: Path) -> None:
    open_store(f"file://{tmp_path}/empty").close()
    shown = muster("store", "verify", f"file://{tmp_path}/empty")
    assert (shown.code, shown.err.splitlines()[0]) == (
        1,
        "error: 'root' is corrupt: it is absent: there is no journal here",
    )


def test_an_address_that_names_no_store_is_a_usage_error(muster: Muster) -> None:
    shown = muster("store", "verify", "postgres://host/db")
    assert shown.code == 2
    assert "there is no backend 'postgres'" in shown.err


# --- copies ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> str:
    return f"file://{tmp_path}/backup"


@pytest.mark.parametrize("form", ["table", "json"])
def test_a_backup_says_what_it_holds(muster: Muster, url: str, place: str, form: str) -> None:
    shown = muster("store", "backup", url, "--to", place, "-o", form)
    assert (shown.code, shown.err) == (0, "")
    assert bare(shown.out).replace(place, "PLACE") == golden(f"store-backup-{form}")


def test_a_backup_is_read_and_proven_like_a_store(muster: Muster, url: str, place: str) -> None:
    muster("store", "backup", url, "--to", place)
    for command in ("verify", "history"):
        assert muster("store", command, place).out == muster("store", command, url).out
    assert json.loads(muster("store", "stat", place, "-o", "json").out)["entries"] == 4


def test_a_second_backup_copies_nothing_twice(muster: Muster, url: str, place: str) -> None:
    def copied() -> int:
        return int(json.loads(muster("store", "backup", url, "--to", place, "-o", "json").out)["copied"])

    assert [copied(), copied()] == [4, 0]


def test_a_backup_of_another_journal_is_kept(muster: Muster, url: str, place: str, tmp_path: Path) -> None:
    muster("store", "backup", url, "--to", place)
    other = open_store(f"sqlite:///{tmp_path}/other.db")
    other.create(BlobName("root"), encode_root(Root(format=1, lineage="other", nonce="n")))
    other.close()
    shown = muster("store", "backup", f"sqlite:///{tmp_path}/other.db", "--to", place)
    assert (shown.code, "a backup of lineage 1800000000000-abc, not of other" in shown.err) == (4, True)


def test_a_moved_store_is_proven_there_and_refused_here(muster: Muster, url: str, tmp_path: Path) -> None:
    target = f"file://{tmp_path}/moved"
    before = muster("store", "verify", url).out
    shown = muster("store", "migrate", url, target)
    assert (shown.code, f"start the servers with --store {target}" in shown.out) == (0, True)
    assert muster("store", "verify", target).out == before
    refused = muster("store", "verify", url)
    assert (refused.code, refused.err) == (
        4,
        f"error: this store was moved to {target}: start the servers on that one\n  use {target}\n",
    )


def test_a_store_is_not_moved_onto_itself_or_another(muster: Muster, url: str, tmp_path: Path) -> None:
    assert muster("store", "migrate", url, url).code == 2
    other = journal_at(f"sqlite:///{tmp_path}/other.db")
    shown = muster("store", "migrate", url, other)
    assert (shown.code, "holds a journal already" in shown.err) == (4, True)
    assert muster("store", "verify", url).code == 0


def test_the_newest_format_needs_no_upgrade(muster: Muster, url: str) -> None:
    assert muster("store", "upgrade", url).out == f"format {FORMAT} already\n"


def test_a_format_is_raised_when_every_server_that_lives_reads_it(muster: Muster, tmp_path: Path, stub: Stub) -> None:
    url = f"sqlite:///{tmp_path}/old.db"
    store = open_store(url)
    write_journal(store, format_max=1)
    store.create(BlobName("servers/s-1"), json.dumps({"url": stub.url}).encode())
    store.create(BlobName("servers/s-2"), b'{"url": "http://127.0.0.1:1"}')
    store.close()
    stub.answers[("GET", "/readyz")] = (503, {"ready": False, "format": 1})
    shown = muster("store", "upgrade", url)
    assert (shown.code, f"server s-1 lives and reads formats up to 1, not {FORMAT}" in shown.err) == (4, True)
    stub.answers[("GET", "/readyz")] = (200, {"ready": True, "format": FORMAT})
    assert muster("store", "upgrade", url).out == f"format 1 -> {FORMAT}\n"
    assert muster("store", "upgrade", url).out == f"format {FORMAT} already\n"
    assert muster("store", "stat", url).out.startswith(f"format       {FORMAT}\n")


def with_agents(url: str, understands: dict[str, int]) -> None:
    """A store of format 1 whose leases were renewed by agents that say this; 0: nobody ever renewed."""
    store = open_store(url)
    write_journal(store, format_max=1)
    lineage = read_root(store).lineage
    for cluster, newest in understands.items():
        body = LeaseBody(cluster=cluster, state="Fenced", epoch=1, nonce="w")
        if newest:
            body = replace(body, state="Active", renewal_nonce="r", understands=newest)
        store.create(lease_name(lineage, cluster), encode_lease(body))
    store.close()


def test_a_format_is_not_raised_while_agents_do_not_understand_it(muster: Muster, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/old.db"
    with_agents(url, {"c-1": 1, "c-2": 3, "c-3": FORMAT, "c-4": 0})
    shown = muster("store", "upgrade", url)
    assert shown.code == 4
    assert shown.err == (
        f"error: agents that do not understand format {FORMAT}: c-1 (up to 1), c-2 (up to 3)\n"
        "  upgrade them first, or add --older-agents: what came with the format does not happen in their clusters\n"
    )
    assert muster("store", "upgrade", url, "--older-agents").out == f"format 1 -> {FORMAT}\n"
    assert muster("store", "upgrade", url).out == f"format {FORMAT} already\n"


@pytest.mark.parametrize(("count", "end"), [(20, "c-19 (up to 1)\n"), (21, "c-19 (up to 1) and 1 more\n")])
def test_so_many_clusters_with_older_agents_are_named(muster: Muster, tmp_path: Path, count: int, end: str) -> None:
    url = f"sqlite:///{tmp_path}/old.db"
    with_agents(url, {f"c-{number:02d}": 1 for number in range(count)})
    assert muster("store", "upgrade", url).err.partition("  ")[0].endswith(end)


def test_agents_of_this_version_understand_its_format() -> None:
    assert FORMAT_UNDERSTOOD == FORMAT


def test_a_store_of_a_later_version_is_refused_with_both_formats(muster: Muster, url: str) -> None:
    store = open_store(url)
    found = store.get(ROOT_NAME)
    assert found is not None
    later = found.data.replace(b'"format":%d' % FORMAT, b'"format":%d' % (FORMAT + 1))
    assert later != found.data
    store.replace(ROOT_NAME, later, found.version)
    store.close()
    said = f"'root' has format {FORMAT + 1}; this version reads {FORMAT} and older: upgrade it"
    for command in ("verify", "stat", "history", "upgrade"):
        shown = muster("store", command, url)
        assert (shown.code, said in shown.err) == (4, True)


# --- restore ---------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_restored_store_has_the_format_of_its_backup(muster: Muster, place: str, tmp_path: Path) -> None:
    for number, later in ((1, "are stopped, unless"), (2, "are stopped, unless"), (3, "are known again")):
        store = open_store(f"file://{tmp_path}/store-{number}")
        write_journal(store, format_max=number)
        store.close()
        muster("store", "backup", f"file://{tmp_path}/store-{number}", "--to", f"{place}-{number}")
        done = muster("store", "restore", f"{place}-{number}", f"file://{tmp_path}/restored-{number}")
        assert (done.code, f"later groups that run {later}" in done.out) == (0, True)
        shown = muster("store", "stat", f"file://{tmp_path}/restored-{number}")
        assert shown.out.startswith(f"format       {number}\n")


@pytest.mark.long
def test_a_restored_store_goes_on_in_a_new_lineage(muster: Muster, url: str, place: str, tmp_path: Path) -> None:
    target = f"file://{tmp_path}/restored"
    muster("store", "backup", url, "--to", place)
    shown = muster("store", "restore", place, target, "-o", "json")
    done = json.loads(shown.out)
    assert (shown.code, done["lineage_before"], done["clusters"]) == (0, "1800000000000-abc", ["c-1"])
    assert (done["groups"], done["homes"], done["last_seq"], done["first_seq"]) == (1, 1, 4, 4 + 2**34 + 1)
    assert done["lineage"] > done["lineage_before"]
    assert muster("store", "verify", target).code == 0
    history = json.loads(muster("store", "history", target, "-o", "json").out)["items"]
    assert [(item["kind"], item["detail"]["before"]) for item in history] == [("Restored", "1800000000000-abc")]


def test_a_restore_says_what_is_lost_and_what_to_do_next(muster: Muster, url: str, place: str, tmp_path: Path) -> None:
    muster("store", "backup", url, "--to", place)
    lines = muster("store", "restore", place, f"file://{tmp_path}/restored").out.splitlines()
    assert "lost        what was acknowledged after 2027-01-15T08:00:00Z, entry 4" in lines
    assert "waits for   c-1" in lines
    assert f"next        start the servers with --store file://{tmp_path}/restored" in lines


def test_a_place_without_a_backup_restores_nothing(muster: Muster, url: str, tmp_path: Path) -> None:
    target = f"file://{tmp_path}/restored"
    shown = muster("store", "restore", url, target)
    assert (shown.code, "holds no backup" in shown.err) == (3, True)
    assert not (tmp_path / "restored").exists()


def test_a_backup_is_restored_into_an_empty_store_only(muster: Muster, url: str, place: str) -> None:
    muster("store", "backup", url, "--to", place)
    before = muster("store", "verify", url).out
    shown = muster("store", "restore", place, url)
    assert (shown.code, "holds a journal" in shown.err) == (4, True)
    assert muster("store", "verify", url).out == before


def test_a_damaged_backup_is_not_restored(muster: Muster, url: str, place: str, tmp_path: Path) -> None:
    muster("store", "backup", url, "--to", place)
    kept = open_store(place)
    kept.delete(BlobName("backup/" + entry_name(3)))
    kept.close()
    shown = muster("store", "restore", place, f"file://{tmp_path}/restored")
    assert (shown.code, entry_name(3) in shown.err) == (1, True)
    assert not (tmp_path / "restored").exists()


@pytest.mark.parametrize("command", [("backup", "URL", "--to", "memory:"), ("migrate", "URL", "memory:")])
def test_nothing_is_copied_or_moved_to_where_it_would_not_stay(
    muster: Muster, url: str, command: tuple[str, ...]
) -> None:
    shown = muster("store", *(url if word == "URL" else word for word in command))
    assert (shown.code, shown.err) == (
        4,
        "error: memory: is gone when this command ends\n  name a place that stays\n",
    )
    assert muster("store", "verify", url).code == 0
