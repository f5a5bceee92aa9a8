"""A store in etcd, by the `etcd3` client's own stubs: a blob is one key, created where its version is 0.

etcd3 loads only with the pure-Python protobuf. Its helpers are not used: they retry nothing, but lose the revisions.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import parse_qsl, urlsplit

from storage.backends.etcd_watch import Watch
from storage.blob import LIST_LIMIT, Blob, BlobName, Outcome, Version, Written
from storage.errors import StoreUrlError, UnavailableError

if TYPE_CHECKING:
    from etcd3 import Etcd3Client

REQUEST_TIMEOUT_S: Final = 5.0
"""An etcd that answers later has lost its quorum or its disk; the outcome is then read back."""
PORT: Final = 2379
IMPLEMENTATION: Final = "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"
MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
"""A page of names, or one blob, with room to spare; gRPC's own limit of 4 MiB is close to the former."""

_CHANNEL_OPTIONS: Final = (
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
)
_OPTIONS: Final = frozenset({"ca", "cert", "key"})

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Address:
    """An etcd's address, taken apart: `etcd://host:port,host:port/prefix?ca=FILE&cert=FILE&key=FILE`."""

    members: tuple[tuple[str, int], ...]
    prefix: str
    ca: str | None = None
    cert: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Login:
    """A user of etcd; never part of an address, which is shown and logged."""

    user: str
    password: str


class EtcdStore:
    """Implements `storage.blob.WatchableStore` under a prefix of an etcd; versions are modification revisions.

    An expired login is renewed once per call: that answer says that the call was not carried out. A member that
    cannot be reached makes the next call go to the next one. Raises UnavailableError when protobuf is not the one
    that the client needs, or the first login fails.
    """

    def __init__(self, address: Address, login: Login | None = None) -> None:
        _expect_pure_protobuf()
        self._rpc = _client_module().etcdrpc
        self._address = address
        self._login = login
        self._base = address.prefix.encode() + b"/" if address.prefix else b""
        self._lock = threading.Lock()
        self._member = 0
        self._closed = False
        self._watches: list[Watch] = []
        self._client = self._connected("open", str(address.members))

    def create(self, name: BlobName, data: bytes) -> Written:
        compare = self._rpc.Compare(
            key=self._key(name), target=self._rpc.Compare.VERSION, result=self._rpc.Compare.EQUAL, version=0
        )
        return self._write(compare, name, data)

    def replace(self, name: BlobName, data: bytes, version: Version) -> Written:
        if not version.isdecimal() or not 0 < int(version) < 2**63:
            return Written(Outcome.REFUSED)
        compare = self._rpc.Compare(
            key=self._key(name), target=self._rpc.Compare.MOD, result=self._rpc.Compare.EQUAL, mod_revision=int(version)
        )
        return self._write(compare, name, data)

    def get(self, name: BlobName) -> Blob | None:
        request = self._rpc.RangeRequest(key=self._key(name))
        answer = self._call("get", name, lambda client: _range(client, request))
        if not answer.kvs:
            return None
        return Blob(answer.kvs[0].value, Version(str(answer.kvs[0].mod_revision)))

    def list(self, prefix: str, start: str = "", limit: int = LIST_LIMIT) -> Sequence[BlobName]:
        begin = self._key(prefix)
        if start >= prefix:
            begin = self._key(start) + b"\0"
        request = self._rpc.RangeRequest(
            key=begin or b"\0", range_end=_end_of(self._key(prefix)), limit=limit, keys_only=True
        )
        if limit < 1 or (request.range_end != b"\0" and begin >= request.range_end):
            return []
        answer = self._call("list", prefix, lambda client: _range(client, request))
        return [BlobName(kv.key[len(self._base) :].decode()) for kv in answer.kvs]

    def delete(self, name: BlobName) -> None:
        request = self._rpc.DeleteRangeRequest(key=self._key(name))
        self._call("delete", name, lambda client: client.kvstub.DeleteRange(request, **_how(client)))

    def watch(self, prefix: str, heard: Callable[[BlobName], None]) -> None:
        """The stream is begun again after a member was away, with a new login where that had expired."""
        key = self._key(prefix)
        wish = self._rpc.WatchCreateRequest(
            key=key or b"\0", range_end=_end_of(key), filters=[self._rpc.WatchCreateRequest.NODELETE]
        )
        request = self._rpc.WatchRequest(create_request=wish)
        base = len(self._base)
        told = Watch(self._stream, request, lambda found: heard(BlobName(found[base:].decode())), self._stream_failed)
        with self._lock:
            self._watches.append(told)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._client.close()
        for watch in self._watches:
            watch.stop()

    def _write(self, compare: Any, name: BlobName, data: bytes) -> Written:
        put = self._rpc.RequestOp(request_put=self._rpc.PutRequest(key=self._key(name), value=data))
        request = self._rpc.TxnRequest(compare=[compare], success=[put])
        try:
            answer = self._call("write", name, lambda client: client.kvstub.Txn(request, **_how(client)))
        except UnavailableError as error:
            return Written(Outcome.UNKNOWN, why=error.why)
        if not answer.succeeded:
            return Written(Outcome.REFUSED)
        return Written(Outcome.DONE, Version(str(answer.header.revision)))

    def _key(self, name: str) -> bytes:
        return self._base + name.encode()

    # --- the connection ---

    def _stream(self, requests: Iterator[Any]) -> Iterable[Any]:
        client = self._open_client("watch", "")
        stub = self._rpc.WatchStub(client.channel)
        answers: Iterable[Any] = stub.Watch(requests, metadata=client.metadata)
        return answers

    def _stream_failed(self, error: Exception) -> None:
        """An expired login is renewed here as well: a store that is only listened to makes no calls that would."""
        if self._login is not None and _is_expired_login(error):
            with contextlib.suppress(UnavailableError):
                self._renew(self._open_client("watch", ""), "watch", "")

    def _call(self, operation: str, name: str, ask: Callable[[Etcd3Client], _Answer]) -> _Answer:
        """Ask once; and once more after a login that had expired."""
        with self._answering(operation, name):
            client = self._open_client(operation, name)
            try:
                return ask(client)
            except _rpc_error() as error:
                if not _is_expired_login(error) or self._login is None:
                    raise
                self._renew(client, operation, name)
            return ask(self._open_client(operation, name))

    @contextlib.contextmanager
    def _answering(self, operation: str, name: str) -> Iterator[None]:
        try:
            yield
        except _rpc_error() as error:
            if _code_name(error) == "UNAVAILABLE":
                self._turn_to_next_member()
            raise UnavailableError(operation, name, _why(error)) from error
        except ValueError as error:  # the channel was closed by another thread's new login
            raise UnavailableError(operation, name, str(error)) from error

    def _open_client(self, operation: str, name: str) -> Etcd3Client:
        with self._lock:
            if self._closed:
                raise UnavailableError(operation, name, "the store is closed")
            return self._client

    def _renew(self, used: Etcd3Client, operation: str, name: str) -> None:
        """Log in anew, unless another thread has done so since."""
        with self._lock:
            if self._client is used and not self._closed:
                self._client = self._connected(operation, name)
                used.close()

    def _turn_to_next_member(self) -> None:
        with self._lock:
            if len(self._address.members) > 1 and not self._closed:
                self._member = (self._member + 1) % len(self._address.members)
                before = self._client
                with contextlib.suppress(UnavailableError):
                    self._client = self._connected("connect", "")
                    before.close()

    def _connected(self, operation: str, name: str) -> Etcd3Client:
        host, port = self._address.members[self._member]
        try:
            return _client_module().Etcd3Client(
                host=host,
                port=port,
                ca_cert=self._address.ca,
                cert_cert=self._address.cert,
                cert_key=self._address.key,
                timeout=REQUEST_TIMEOUT_S,
                user=self._login.user if self._login else None,
                password=self._login.password if self._login else None,
                grpc_options=_CHANNEL_OPTIONS,
            )
        except _rpc_error() as error:
            raise UnavailableError(operation, name, f"login: {_why(error)}") from error
        except (OSError, ValueError) as error:
            raise UnavailableError(operation, name, f"certificates: {error}") from error


def parse_address(url: str, schemes: tuple[str, ...] = ("etcd",)) -> Address:
    """Take an etcd's address apart; raises StoreUrlError when it names none or has an option nobody reads."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    members = tuple(_member(url, place, schemes) for place in parts.netloc.split(","))
    unknown = sorted(options.keys() - _OPTIONS)
    if unknown:
        raise StoreUrlError(url, f"there is no option {unknown[0]!r} (there are: ca, cert, key)", schemes)
    if ("cert" in options) != ("key" in options) or ("cert" in options and "ca" not in options):
        raise StoreUrlError(url, "a client certificate needs all of ca, cert and key", schemes)
    return Address(members, parts.path.strip("/"), options.get("ca"), options.get("cert"), options.get("key"))


def login_from(environment: Mapping[str, str]) -> Login | None:
    """The user that etcd's own tool would take: `ETCDCTL_USER` as `user:password`, or with `ETCDCTL_PASSWORD`."""
    user, colon, password = environment.get("ETCDCTL_USER", "").partition(":")
    if not user:
        return None
    return Login(user, password if colon else environment.get("ETCDCTL_PASSWORD", ""))


def _member(url: str, place: str, schemes: tuple[str, ...]) -> tuple[str, int]:
    host, _, port = place.rpartition(":") if ":" in place.rpartition("]")[2] else (place, "", str(PORT))
    if "@" in place:
        raise StoreUrlError(url, "a password does not belong in an address: set ETCDCTL_USER", schemes)
    if not host or not port.isdecimal():
        raise StoreUrlError(url, "write etcd://host:port/prefix, several members with a comma between", schemes)
    return host, int(port)


def _end_of(prefix: bytes) -> bytes:
    """The first key after all that begin with `prefix`; etcd reads NUL as the end of everything."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else b"\0"


def _range(client: Etcd3Client, request: Any) -> Any:
    return client.kvstub.Range(request, **_how(client))


def _how(client: Etcd3Client) -> dict[str, Any]:
    return {"timeout": REQUEST_TIMEOUT_S, "metadata": client.metadata}


def _is_expired_login(error: Exception) -> bool:
    """Either the token is too old, or users were changed since it was given. A watch is told so in words only."""
    said = _why(error)
    old = "revision of auth store is old" in said or "invalid auth token" in said
    return _code_name(error) == "UNAUTHENTICATED" or old


def _code_name(error: Exception) -> str:
    code = getattr(error, "code", None)
    return str(code().name) if callable(code) and code() is not None else ""


def _why(error: Exception) -> str:
    details = getattr(error, "details", None)
    said = (details() if callable(details) else None) or str(error)
    if "database space exceeded" in said:
        return f"{said}: compact and defragment etcd, then disarm its alarm; nothing is lost, and it goes on by itself"
    return f"{said} ({_code_name(error)})"


def _rpc_error() -> type[Exception]:
    import grpc

    error: type[Exception] = grpc.RpcError
    return error


def _client_module() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of 2020's generated code
        import etcd3
    return etcd3


def _expect_pure_protobuf() -> None:
    """Choose the pure-Python protobuf if nobody has loaded it yet; raise UnavailableError if it is another one."""
    if "google.protobuf" not in sys.modules:
        os.environ.setdefault(IMPLEMENTATION, "python")
    from google.protobuf.internal import api_implementation

    if api_implementation.Type() != "python":
        raise UnavailableError(
            "open",
            "etcd",
            f"its client needs the pure-Python protobuf, and {api_implementation.Type()!r} is loaded: "
            f"start this process with {IMPLEMENTATION}=python",
        )
