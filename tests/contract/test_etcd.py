"""What only a store in etcd meets: logins that expire, certificates, members that go away and come back."""

import contextlib
import subprocess
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
