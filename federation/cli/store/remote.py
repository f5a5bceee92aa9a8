"""A running server's store, seen through its API: reads only, for stores that admit one process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from muster import Client
from muster.calls import Call
from storage.blob import LIST_LIMIT, Blob, BlobName, Outcome, Version, Written
from storage.entry import entry_name, seq_of_entry
from storage.errors import UnavailableError

AHEAD: Final = 64  # entries asked for at a time, as many as the server answers in one call
WHY_NOT: Final = "a server's store is only read here"

_Found = tuple[str, bytes] | None
_blobs_decoder = msgspec.msgpack.Decoder(list[_Found])


class _Names(msgspec.Struct):
    items: list[str] = []


_names_decoder = msgspec.json.Decoder(_Names)


class RemoteStore:
    """Implements `storage.blob.BlobStore` over a server's API; writes are refused. Reads ahead along the journal.

    What was read ahead is handed out once: a second look at a name asks the server again.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._ahead: dict[str, Blob] = {}

    def get(self, name: BlobName) -> Blob | None:
        if name in self._ahead:
            return self._ahead.pop(name)
        names = _along(name)
        found = self._send(Call("GET", "/v1/store/blobs", _blobs_decoder.decode, tuple(("name", one) for one in names)))
        blobs = [blob and Blob(blob[1], Version(blob[0])) for blob in found]
        self._ahead = {one: blob for one, blob in zip(names[1:], blobs[1:], strict=False) if blob is not None}
        return blobs[0]

    def list(self, prefix: str, start: str = "", limit: int = LIST_LIMIT) -> Sequence[BlobName]:
        query = (("prefix", prefix), ("start", start), ("limit", str(limit)))
        return [BlobName(one) for one in self._send(Call("GET", "/v1/store/names", _names_decoder.decode, query)).items]

    def create(self, name: BlobName, data: bytes) -> Written:
        del name, data
        return Written(Outcome.REFUSED, why=WHY_NOT)

    def replace(self, name: BlobName, data: bytes, version: Version) -> Written:
        del name, data, version
        return Written(Outcome.REFUSED, why=WHY_NOT)

    def delete(self, name: BlobName) -> None:
        raise UnavailableError("delete", name, WHY_NOT)

    def close(self) -> None:
        """The session closes its client."""

    def _send(self, call: Call[Any]) -> Any:
        return self._client.send(call)


def _along(name: str) -> list[str]:
    """The name, and of an entry the next ones too."""
    seq = seq_of_entry(name)
    if seq is None:
        return [name]
    return [entry_name(seq + ahead) for ahead in range(AHEAD)]
