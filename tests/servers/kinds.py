"""The servers the tests know: how each is started, and the address under which Muster finds a fresh store in it."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import hmac
import itertools
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tests.servers.process import built, free_port, running

BUCKET: Final = "bucket"
CREDENTIALS: Final = {
    "AWS_ACCESS_KEY_ID": "muster",
    "AWS_SECRET_ACCESS_KEY": "muster-test-secret",
    "AWS_REGION": "us-east-1",
    # The account that every azurite has; its key is printed in azurite's documentation.
    "AZURE_STORAGE_ACCOUNT_NAME": "devstoreaccount1",
    "AZURE_STORAGE_ACCOUNT_KEY": (
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    ),
}
"""What the tests' own environment must hold: the client reads credentials from there only."""

_python: Final = ("venv", "bin", "python")
_Opened = Iterator[str]
"""One address template; `{prefix}` in it keeps stores of one server apart."""


@contextlib.contextmanager
def moto(folder: Path) -> _Opened:
    port = free_port()
    argv = (built(*_python), str(Path(__file__).with_name("serial_moto.py")), "127.0.0.1", str(port))
    with running(argv, folder, answers_at=f"http://127.0.0.1:{port}/"):
        yield _with_bucket(port)


@contextlib.contextmanager
def ministack(folder: Path) -> _Opened:
    port = free_port()
    environment = {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "IOT_MTLS_ENABLED": "0",  # these two would open ports on all addresses
        "SFTP_ENABLED": "0",
    }
    argv = (built("venv", "bin", "ministack"),)
    with running(argv, folder, answers_at=f"http://127.0.0.1:{port}/", environment=environment):
        yield _with_bucket(port)


@contextlib.contextmanager
def localbucket(folder: Path) -> _Opened:
    """Honours If-None-Match and ignores If-Match."""
    port = free_port()
    (folder / "data" / BUCKET).mkdir(parents=True)
    argv = (built("venv", "bin", "localbucket"), "--host", "127.0.0.1", "--port", str(port), str(folder / "data"))
    with running(argv, folder, answers_at=f"http://127.0.0.1:{port}/"):
        yield _s3(port)


@contextlib.contextmanager
def nanio(folder: Path) -> _Opened:
    """Ignores both conditions."""
    port = free_port()
    (folder / "data" / BUCKET).mkdir(parents=True)
    argv = (built("venv", "bin", "nanio"), "serve", "--host", "127.0.0.1", "--port", str(port))
    environment = {
        "NANIO_ACCESS_KEY": CREDENTIALS["AWS_ACCESS_KEY_ID"],
        "NANIO_SECRET_KEY": CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        "NANIO_DATA_DIR": str(folder / "data"),
    }
    with running(argv, folder, answers_at=f"http://127.0.0.1:{port}/", environment=environment):
        yield _s3(port)


@contextlib.contextmanager
def loopback(folder: Path) -> _Opened:
    """Our own, whose answers can be made to go wrong."""
    port = free_port()
    argv = (sys.executable, str(Path(__file__).with_name("loopback_s3.py")), str(port))
    with running(argv, folder, answers_at=f"http://127.0.0.1:{port}/_faults"):
        yield _s3(port)


@contextlib.contextmanager
def azurite(folder: Path) -> _Opened:
    port = free_port()
    argv = (
        "node",
        built("node_modules", "azurite", "dist", "src", "blob", "main.js"),
        *("--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence"),
        *("--skipApiVersionCheck", "--disableTelemetry", "--silent"),
    )
    account = CREDENTIALS["AZURE_STORAGE_ACCOUNT_NAME"]
    endpoint = f"http://127.0.0.1:{port}/{account}"
    with running(argv, folder, answers_at=endpoint):
        _make_container(endpoint, account)
        yield f"az://{BUCKET}/{{prefix}}?endpoint={endpoint}"


@contextlib.contextmanager
def etcd(folder: Path) -> _Opened:
    port = free_port()
    with running_etcd(folder, port):
        yield f"etcd://127.0.0.1:{port}/{{prefix}}"


def running_etcd(
    folder: Path, port: int, *, scheme: str = "http", options: tuple[str, ...] = ()
) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """An etcd of one member on `port`, with its data in `folder`, where a later one goes on with them."""
    client, peer, health = (f"http://127.0.0.1:{number}" for number in (port, free_port(), free_port()))
    client = client.replace("http", scheme)
    argv = (
        built("etcd"),
        *("--name", "test", "--data-dir", str(folder / "data"), "--log-level", "error"),
        *("--listen-client-urls", client, "--advertise-client-urls", client, "--listen-metrics-urls", health),
        *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"test={peer}"),
        *options,
    )
    return running(argv, folder, answers_at=f"{health}/readyz")


KINDS: Final[dict[str, Callable[[Path], contextlib.AbstractContextManager[str]]]] = {
    "moto": moto,
    "ministack": ministack,
    "localbucket": localbucket,
    "nanio": nanio,
    "loopback": loopback,
    "azurite": azurite,
    "etcd": etcd,
}


class Servers:
    """Servers started at first use and shared by all tests of one process; each address is a store of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._templates: dict[str, str] = {}
        self._numbers = itertools.count(1)

    def new_store(self, kind: str) -> str:
        """Address of an empty store."""
        if kind not in self._templates:
            folder = self._folder / kind
            folder.mkdir()
            self._templates[kind] = self._stack.enter_context(KINDS[kind](folder))
        return self._templates[kind].format(prefix=f"store/{next(self._numbers)}")

    def close(self) -> None:
        self._stack.close()


def _s3(port: int) -> str:
    return f"s3://{BUCKET}/{{prefix}}?endpoint=http://127.0.0.1:{port}"


def _with_bucket(port: int) -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{BUCKET}", method="PUT")
    urllib.request.urlopen(request, timeout=30.0).close()
    return _s3(port)


def _make_container(endpoint: str, account: str) -> None:
    """The one Azure call that the store's own client has no word for, signed by hand."""
    now = dt.datetime.now(dt.UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    path = endpoint.partition("//")[2].partition("/")[2]
    headers = {"x-ms-date": now, "x-ms-version": "2023-11-03"}
    signed = "\n".join(
        [
            "PUT",
            *[""] * 11,
            *(f"{name}:{value}" for name, value in sorted(headers.items())),
            f"/{account}/{path}/{BUCKET}",
            "restype:container",
        ]
    )
    key = base64.b64decode(CREDENTIALS["AZURE_STORAGE_ACCOUNT_KEY"])
    signature = base64.b64encode(hmac.new(key, signed.encode(), hashlib.sha256).digest()).decode()
    request = urllib.request.Request(
        f"{endpoint}/{BUCKET}?restype=container",
        method="PUT",
        headers={**headers, "Authorization": f"SharedKey {account}:{signature}", "Content-Length": "0"},
    )
    urllib.request.urlopen(request, timeout=30.0).close()
