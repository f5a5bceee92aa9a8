"""A store in a bucket of S3, GCS or Azure, or of a server that speaks one of their protocols, by `obstore`.

The client's own retries are off: they turn an applied write into a refusal. Versions are the bucket's own marks.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import parse_qsl, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError, PreconditionError
from obstore.store import AzureStore, GCSStore, S3Store

from storage.blob import LIST_LIMIT, Blob, BlobName, Outcome, Version, Written
from storage.errors import StoreUrlError, UnavailableError

REQUEST_TIMEOUT_S: Final = 10.0
"""A bucket's slowest answers take a second or two; after this the outcome is unknown and is read back."""
CONNECT_TIMEOUT_S: Final = 3.0
WHY_LENGTH_MAX: Final = 300
"""A server's error page is not a reason."""
LIST_CHUNK: Final = 1_000
"""Names per request: what the buckets give at most."""
if TYPE_CHECKING:
    from obstore.store import AzureConfig, ClientConfig, GCSConfig, S3Config

_Bucket = S3Store | GCSStore | AzureStore


@dataclass(frozen=True, slots=True)
class Address:
    """A bucket's address, taken apart: `s3://bucket/prefix?endpoint=http://127.0.0.1:9000&region=eu-1`."""

    scheme: str
    bucket: str
    prefix: str
    endpoint: str | None
    region: str | None
    account: str | None


_ABSENT: Final = (NotFoundError, FileNotFoundError)
_FAILED: Final = (BaseError, OSError)
"""Some of the client's errors are Python's own."""
_Build = Callable[[Address], _Bucket]
_OPTIONS: Final[dict[str, frozenset[str]]] = {
    "s3": frozenset({"endpoint", "region"}),
    "gs": frozenset({"endpoint"}),
    "az": frozenset({"endpoint", "account"}),
}


class ObjectStore:
    """Implements `storage.blob.BlobStore` over a bucket; credentials come from the environment.

    That is what the bucket's own tools read: `AWS_ACCESS_KEY_ID`, `GOOGLE_APPLICATION_CREDENTIALS`,
    `AZURE_STORAGE_ACCOUNT_KEY` and the like. REFUSED is a hint here: some servers say "conflict" and have stored
    nothing. Raises UnavailableError when the client cannot be made.
    """

    def __init__(self, address: Address) -> None:
        self._by_generation = address.scheme == "gs"
        try:
            self._bucket = _BUILD[address.scheme](address)
        except _FAILED as error:
            raise UnavailableError("open", address.bucket, _why(error)) from error

    def create(self, name: BlobName, data: bytes) -> Written:
        try:
            answer = obstore.put(self._bucket, name, data, mode="create", use_multipart=False)
        except (AlreadyExistsError, PreconditionError):
            return Written(Outcome.REFUSED)
        except _FAILED as error:
            return Written(Outcome.UNKNOWN, why=_why(error))
        return self._done(answer["e_tag"], answer["version"])

    def replace(self, name: BlobName, data: bytes, version: Version) -> Written:
        if not _may_be_a_mark(version):
            return Written(Outcome.REFUSED)
        mark: obstore.UpdateVersion = {"version": version} if self._by_generation else {"e_tag": version}
        try:
            answer = obstore.put(self._bucket, name, data, mode=mark, use_multipart=False)
        except (PreconditionError, AlreadyExistsError, *_ABSENT):
            return Written(Outcome.REFUSED)
        except _FAILED as error:
            return Written(Outcome.UNKNOWN, why=_why(error))
        return self._done(answer["e_tag"], answer["version"])

    def get(self, name: BlobName) -> Blob | None:
        with self._reading("get", name):
            try:
                answer = obstore.get(self._bucket, name)
                data = answer.bytes().to_bytes()
            except _ABSENT:
                return None
        version = self._version(answer.meta["e_tag"], answer.meta["version"])
        if version is None:
            raise UnavailableError("get", name, "the server gives objects no version mark")
        return Blob(data, version)

    def list(self, prefix: str, start: str = "", limit: int = LIST_LIMIT) -> Sequence[BlobName]:
        """Equivalent to filtering and sorting all names, except that it begins at `start` and ends early.

        Buckets list in byte order, so the first name beyond the prefix ends it.
        """
        folder = prefix.rpartition("/")[0]
        names: list[BlobName] = []
        with self._reading("list", prefix):
            pages = obstore.list(self._bucket, folder or None, offset=start or None, chunk_size=LIST_CHUNK)
            for page in pages:
                for found in page:
                    name = found["path"]
                    if name.startswith(prefix) and name > start:
                        names.append(BlobName(name))
                    if len(names) == limit or (name > prefix and not name.startswith(prefix)):
                        return names
        return names

    def delete(self, name: BlobName) -> None:
        with self._reading("delete", name), contextlib.suppress(*_ABSENT):
            obstore.delete(self._bucket, name)

    def close(self) -> None:
        """Connections are the client's own and end with it."""

    def _version(self, e_tag: str | None, generation: str | None) -> Version | None:
        mark = generation if self._by_generation else e_tag
        return Version(mark) if mark else None

    def _done(self, e_tag: str | None, generation: str | None) -> Written:
        return Written(Outcome.DONE, self._version(e_tag, generation))

    @contextlib.contextmanager
    def _reading(self, operation: str, name: str) -> Iterator[None]:
        try:
            yield
        except _FAILED as error:
            raise UnavailableError(operation, name, _why(error)) from error


def parse_address(url: str, schemes: tuple[str, ...] = ("az", "gs", "s3")) -> Address:
    """Take a bucket's address apart; raises StoreUrlError when it names none or has an option nobody reads."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.scheme not in _OPTIONS or not parts.netloc:
        raise StoreUrlError(url, "write s3://bucket/prefix, gs://bucket/prefix or az://container/prefix", schemes)
    unknown = sorted(options.keys() - _OPTIONS[parts.scheme])
    if unknown:
        known = ", ".join(sorted(_OPTIONS[parts.scheme]))
        raise StoreUrlError(url, f"there is no option {unknown[0]!r} (there are: {known})", schemes)
    return Address(
        parts.scheme,
        parts.netloc,
        parts.path.strip("/"),
        options.get("endpoint"),
        options.get("region"),
        options.get("account"),
    )


def _build_s3(address: Address) -> _Bucket:
    return S3Store(
        address.bucket,
        prefix=address.prefix or None,
        config=cast(
            "S3Config",
            # One object at a time, by the request that every server knows.
            {**_given({"endpoint": address.endpoint, "region": address.region}), "disable_bulk_delete": True},
        ),
        client_options=_client_options(address),
        retry_config={"max_retries": 0},
    )


def _build_gs(address: Address) -> _Bucket:
    return GCSStore(
        address.bucket,
        prefix=address.prefix or None,
        config=cast("GCSConfig", _given({"base_url": address.endpoint})),
        client_options=_client_options(address),
        retry_config={"max_retries": 0},
    )


def _build_az(address: Address) -> _Bucket:
    return AzureStore(
        address.bucket,
        prefix=address.prefix or None,
        config=cast("AzureConfig", _given({"endpoint": address.endpoint, "account_name": address.account})),
        client_options=_client_options(address),
        retry_config={"max_retries": 0},
    )


_BUILD: Final[dict[str, _Build]] = {"s3": _build_s3, "gs": _build_gs, "az": _build_az}


def _given(options: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in options.items() if value is not None}


def _client_options(address: Address) -> ClientConfig:
    """Plain HTTP only where the address asks for it in so many words."""
    return {
        "timeout": dt.timedelta(seconds=REQUEST_TIMEOUT_S),
        "connect_timeout": dt.timedelta(seconds=CONNECT_TIMEOUT_S),
        "allow_http": address.endpoint is not None and address.endpoint.startswith("http://"),
    }


def _may_be_a_mark(version: Version) -> bool:
    """A mark of another store can hold what no header may, and `*` would match anything."""
    return version.isascii() and version.isprintable() and version.strip() not in {"", "*"}


def _why(error: Exception) -> str:
    """The first line: the rest is how the client's parts were called."""
    return str(error).strip().partition("\n")[0][:WHY_LENGTH_MAX]
