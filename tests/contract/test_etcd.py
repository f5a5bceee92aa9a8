"""What only a store in etcd meets: logins that expire, certificates, members that go away and come back."""

import contextlib
import queue
import subprocess
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from storage.backends.etcd import EtcdStore, Login, parse_address
from storage.blob import Blob, BlobName, Outcome
from storage.errors import UnavailableError
from tests.servers.kinds import running_etcd
from tests.servers.process import ROOT, built, free_port

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from etcd3 import Etcd3Client, etcdrpc

NAME = BlobName("leases/l/c-1")
PASSWORD = "correct horse"


def wait_for_member(store: EtcdStore) -> None:
    """Return when its client is connected again: it pauses between attempts."""
    grpc.channel_ready_future(store._client.channel).result(timeout=30.0)


def with_users(port: int) -> None:
    """Let only root in from now on, by this password or a certificate of that name."""
    client = Etcd3Client("127.0.0.1", port)
    users = etcdrpc.AuthStub(client.channel)
    users.UserAdd(etcdrpc.AuthUserAddRequest(name="root", password=PASSWORD))
    users.UserGrantRole(etcdrpc.AuthUserGrantRoleRequest(user="root", role="root"))
    users.AuthEnable(etcdrpc.AuthEnableRequest())
    client.close()


@pytest.fixture
def with_login(tmp_path: Path) -> Iterator[tuple[int, EtcdStore, contextlib.ExitStack]]:
    port = free_port()
    with contextlib.ExitStack() as server:
        server.enter_context(running_etcd(tmp_path, port))
        with_users(port)
        store = EtcdStore(parse_address(f"etcd://127.0.0.1:{port}/p"), Login("root", PASSWORD))
        yield port, store, server
        store.close()


def test_an_expired_login_is_renewed_and_the_call_carried_out_once(
    with_login: tuple[int, EtcdStore, contextlib.ExitStack], tmp_path: Path
) -> None:
    port, store, server = with_login
    version = store.create(NAME, b"one").version
    assert version is not None
    server.close()  # a member that starts anew has forgotten all logins
    with running_etcd(tmp_path, port):
        wait_for_member(store)
        assert store.get(NAME) == Blob(b"one", version)
        assert store.replace(NAME, b"two", version).outcome is Outcome.DONE


def test_a_wrong_password_is_said_plainly(
    with_login: tuple[int, EtcdStore, contextlib.ExitStack],
) -> None:
    port, _, _ = with_login
    with pytest.raises(UnavailableError, match="login: etcdserver: authentication failed"):
        EtcdStore(parse_address(f"etcd://127.0.0.1:{port}/p"), Login("root", "wrong"))


def test_without_a_login_nothing_is_read_or_written(
    with_login: tuple[int, EtcdStore, contextlib.ExitStack],
) -> None:
    port, _, _ = with_login
    stranger = EtcdStore(parse_address(f"etcd://127.0.0.1:{port}/p"))
    assert stranger.create(NAME, b"one").outcome is Outcome.UNKNOWN
    with pytest.raises(UnavailableError, match="user name is empty"):
        stranger.get(NAME)
    stranger.close()


def test_a_client_certificate_lets_its_holder_in_and_nobody_else(tmp_path: Path) -> None:
    subprocess.run(
        (built("venv", "bin", "python"), str(ROOT / "tests/servers/certificates.py"), str(tmp_path), "root"), check=True
    )
    port = free_port()
    server, client = ((f"{tmp_path}/{part}.pem", f"{tmp_path}/{part}.key") for part in ("server", "client"))
    options = ("--cert-file", server[0], "--key-file", server[1])
    authority = f"{tmp_path}/ca.pem"
    options = (*options, "--client-cert-auth", "--trusted-ca-file", authority)
    with running_etcd(tmp_path, port, scheme="https", options=options):
        address = f"etcd://127.0.0.1:{port}/p?ca={authority}"
        holder = EtcdStore(parse_address(f"{address}&cert={client[0]}&key={client[1]}"))
        assert holder.create(NAME, b"one").outcome is Outcome.DONE
        stranger = EtcdStore(parse_address(address))
        with pytest.raises(UnavailableError):
            stranger.get(NAME)
        holder.close()
        stranger.close()


def test_a_store_goes_on_when_its_member_was_killed_and_started_again(tmp_path: Path) -> None:
    port = free_port()
    with running_etcd(tmp_path, port) as server:
        store = EtcdStore(parse_address(f"etcd://127.0.0.1:{port}/p"))
        version = store.create(NAME, b"one").version
        assert version is not None
        server.kill()
    assert store.create(BlobName("other"), b"").outcome is Outcome.UNKNOWN
    with running_etcd(tmp_path, port):
        wait_for_member(store)
        assert store.get(NAME) == Blob(b"one", version)
    store.close()


def test_a_member_that_is_away_makes_the_next_call_go_to_another(tmp_path: Path) -> None:
    port = free_port()
    with running_etcd(tmp_path, port):
        store = EtcdStore(parse_address(f"etcd://127.0.0.1:{free_port()},127.0.0.1:{port}/p"))
        assert store.create(NAME, b"one").outcome is Outcome.UNKNOWN
        assert store.create(NAME, b"one").outcome is Outcome.DONE
        store.close()


def test_a_value_larger_than_etcd_takes_is_not_stored_and_says_so(tmp_path: Path) -> None:
    port = free_port()
    with running_etcd(tmp_path, port):
        store = EtcdStore(parse_address(f"etcd://127.0.0.1:{port}/p"))
        answer = store.create(NAME, bytes(2_000_000))
        assert answer.outcome is Outcome.UNKNOWN
        assert "request is too large" in answer.why
        assert store.get(NAME) is None
        store.close()


class Heard:
    """What a watch told, in order, for a test that waits for it."""

    def __init__(self) -> None:
        self._names: queue.Queue[BlobName] = queue.Queue()

    def __call__(self, name: BlobName) -> None:
        self._names.put(name)

    def next(self) -> BlobName:
        return self._names.get(timeout=30.0)

    def of_new_ones(self, store: EtcdStore, prefix: str) -> None:
        """Write new names until one is heard of: a stream that is just beginning tells only of what comes after."""
        for number in range(300):
            store.create(BlobName(f"{prefix}{number:03d}"), b"")
            with contextlib.suppress(queue.Empty):
                while not self._names.get(timeout=0.1).startswith(prefix):
                    pass
                return
        raise AssertionError(f"nothing of {prefix} was heard")


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[EtcdStore, Heard, contextlib.ExitStack, int]]:
    port, heard = free_port(), Heard()
    with contextlib.ExitStack() as server:
        server.enter_context(running_etcd(tmp_path, port))
        store = EtcdStore(parse_address(f"etcd://127.0.0.1:{port}/p"))
        store.watch("journal/", heard)
        heard.of_new_ones(store, "journal/first-")
        yield store, heard, server, port
        store.close()


def test_a_watch_tells_each_name_that_is_written_under_its_prefix_and_no_other(
    watched: tuple[EtcdStore, Heard, contextlib.ExitStack, int],
) -> None:
    store, heard, _, _ = watched
    version = store.create(BlobName("journal/z"), b"one").version
    assert version is not None
    store.create(BlobName("leases/l/c-1"), b"")
    store.create(BlobName("journal-of-others"), b"")
    store.delete(BlobName("journal/z"))
    store.create(BlobName("journal/z"), b"two")
    store.create(BlobName("journal/end"), b"")
    told = [name for name in iter(heard.next, BlobName("journal/end")) if "first-" not in name]
    assert told == ["journal/z", "journal/z"]


def test_a_watch_goes_on_when_its_member_was_killed_and_started_again(
    watched: tuple[EtcdStore, Heard, contextlib.ExitStack, int], tmp_path: Path
) -> None:
    store, heard, server, port = watched
    server.close()
    with running_etcd(tmp_path, port):
        wait_for_member(store)
        heard.of_new_ones(store, "journal/again-")


def test_a_watch_whose_login_expired_logs_in_anew_though_its_store_asks_for_nothing(
    with_login: tuple[int, EtcdStore, contextlib.ExitStack], tmp_path: Path
) -> None:
    port, store, server = with_login
    writer = EtcdStore(parse_address(f"etcd://127.0.0.1:{port}/p"), Login("root", PASSWORD))
    heard = Heard()
    store.watch("journal/", heard)
    heard.of_new_ones(writer, "journal/first-")
    server.close()  # a member that starts anew has forgotten all logins
    with running_etcd(tmp_path, port):
        wait_for_member(writer)
        heard.of_new_ones(writer, "journal/again-")
    writer.close()


def test_nothing_is_told_once_the_store_is_closed(
    watched: tuple[EtcdStore, Heard, contextlib.ExitStack, int],
) -> None:
    store, _, _, _ = watched
    store.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "etcd-watch"]
