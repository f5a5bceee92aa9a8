"""What the etcd backend makes of addresses, logins and protobuf, without any server."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from storage.backends.etcd import Address, EtcdStore, Login, _end_of, login_from, parse_address
from storage.blob import BlobName, Outcome, Version, Written
from storage.errors import UnavailableError

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("etcd://host", Address((("host", 2379),), "")),
        ("etcd://host:1/a/b/", Address((("host", 1),), "a/b")),
        ("etcd://one:1,two:2,three/p", Address((("one", 1), ("two", 2), ("three", 2379)), "p")),
        ("etcd://[::1]:1/p", Address((("[::1]", 1),), "p")),
        ("etcd://[::1]/p", Address((("[::1]", 2379),), "p")),
        ("etcd://h/p?ca=/c.pem", Address((("h", 2379),), "p", ca="/c.pem")),
        ("etcd://h/p?ca=a&cert=b&key=c", Address((("h", 2379),), "p", ca="a", cert="b", key="c")),
    ],
)
def test_an_address_names_members_prefix_and_certificates(url: str, address: Address) -> None:
    assert parse_address(url) == address


@pytest.mark.parametrize(
    ("environment", "login"),
    [
        ({}, None),
        ({"ETCDCTL_PASSWORD": "p"}, None),
        ({"ETCDCTL_USER": "u:p:q"}, Login("u", "p:q")),
        ({"ETCDCTL_USER": "u", "ETCDCTL_PASSWORD": "p"}, Login("u", "p")),
    ],
)
def test_a_login_is_taken_from_where_etcds_own_tool_takes_it(environment: dict[str, str], login: Login | None) -> None:
    assert login_from(environment) == login


def test_a_login_does_not_print_its_password() -> None:
    assert "secret" not in repr(Login("u", "secret"))


@pytest.mark.parametrize(
    ("prefix", "end"),
    [(b"a", b"b"), (b"a/", b"a0"), (b"a\xff", b"b"), (b"a\xff\xff", b"b"), (b"", b"\0"), (b"\xff", b"\0")],
)
def test_a_range_ends_where_its_prefix_does(prefix: bytes, end: bytes) -> None:
    assert _end_of(prefix) == end


@pytest.mark.parametrize("version", ["", "0", "-1", "1.5", "x", '"0x8DB"', str(2**63)])
def test_a_version_that_is_no_revision_is_refused_unasked(version: str) -> None:
    store = EtcdStore(parse_address("etcd://127.0.0.1:9"))
    assert store.replace(BlobName("a"), b"", Version(version)) == Written(Outcome.REFUSED)
    store.close()


def test_a_server_that_is_not_there_leaves_writes_unknown_and_reads_unanswered() -> None:
    store = EtcdStore(parse_address("etcd://127.0.0.1:9/p"))
    created = store.create(BlobName("a"), b"")
    assert created == Written(Outcome.UNKNOWN)
    assert created.why.endswith("(UNAVAILABLE)")
    with pytest.raises(UnavailableError):
        store.get(BlobName("a"))
    store.close()


def test_a_closed_store_answers_nothing() -> None:
    store = EtcdStore(parse_address("etcd://127.0.0.1:9/p"))
    store.close()
    assert store.create(BlobName("a"), b"").why == "the store is closed"


def test_certificates_that_are_not_there_are_said_plainly() -> None:
    with pytest.raises(UnavailableError, match=r"certificates: .*absent\.pem"):
        EtcdStore(parse_address("etcd://127.0.0.1:9/p?ca=/absent.pem"))


def opened_in_a_new_process(setting: str | None, before: str = "") -> str:
    environment = {name: value for name, value in os.environ.items() if "PROTOCOL_BUFFERS" not in name}
    if setting is not None:
        environment["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = setting
    program = (
        f"{before}\n"
        "from storage.open import open_store\nfrom storage.errors import UnavailableError\n"
        "try:\n    open_store('etcd://127.0.0.1:9/p').close(); print('opened')\n"
        "except UnavailableError as error:\n    print(error)"
    )
    ran = subprocess.run(
        (sys.executable, "-c", program), cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return ran.stdout.strip()


def test_the_pure_python_protobuf_is_chosen_where_nobody_has_loaded_another() -> None:
    assert opened_in_a_new_process(None) == "opened"
    assert opened_in_a_new_process("python") == "opened"


@pytest.mark.parametrize(
    ("setting", "before"),
    [(None, "import google.protobuf.message"), ("upb", "")],
    ids=["already loaded", "asked for"],
)
def test_another_protobuf_is_refused_with_what_to_do(setting: str | None, before: str) -> None:
    assert opened_in_a_new_process(setting, before) == (
        "the store could not answer open of 'etcd': its client needs the pure-Python protobuf, and 'upb' is loaded: "
        "start this process with PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python"
    )
