"""Where the servers of one store are reached: each writes its own address there, and looks up the leader's.

A hint like any message: who leads is decided by the journal alone, and a wrong address costs a refused call.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import msgspec
import structlog

from storage.blob import Blob, BlobName, BlobStore, Outcome
from storage.errors import UnavailableError

PREFIX: Final = "servers/"
ANNOUNCE_RETRY_S: Final = 2.0
REMEMBER_S: Final = 2.0  # a leader that came back under its name may have another address
URL_CHARS_MAX: Final = 2_048

log = structlog.get_logger()


class Announcement(msgspec.Struct, frozen=True):
    """Unknown fields of later versions are ignored. `nonce` makes each writing differ."""

    url: str
    nonce: str
    schema_version: int = 1


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Announcement)


@dataclass(slots=True)
class Peers:
    """`url` is empty where nobody should call this server: then followers do not forward to it."""

    store: BlobStore
    name: str
    url: str
    nonce: str
    _known: dict[str, tuple[float, str]] = field(default_factory=dict)

    async def announce(self) -> None:
        """This server's address is in the store when this returns; tried for as long as it takes."""
        if not self.url:
            return
        while True:
            if await asyncio.to_thread(self._announced):
                return
            await asyncio.sleep(ANNOUNCE_RETRY_S)

    async def url_of(self, name: str) -> str:
        """The address that the server of this name wrote last; empty where there is none, or the store is away."""
        at_s, url = self._known.get(name, (float("-inf"), ""))
        if time.monotonic() - at_s < REMEMBER_S:
            return url
        url = await asyncio.to_thread(self._look_up, name)
        self._known = {name: (time.monotonic(), url)}  # only the leader is ever asked for
        return url

    def forget(self, name: str) -> None:
        """The address did not answer: look it up again the next time."""
        self._known.pop(name, None)

    def _announced(self) -> bool:
        name = BlobName(PREFIX + self.name)
        data = _encoder.encode(Announcement(self.url, self.nonce))
        try:
            found = self.store.get(name)
            if found is not None and found.data == data:
                return True
            written = self.store.replace(name, data, found.version) if found else self.store.create(name, data)
        except UnavailableError as error:
            log.warning("server.not_announced", why=error.why)
            return False
        return written.outcome is Outcome.DONE

    def _look_up(self, name: str) -> str:
        try:
            return _url_in(self.store.get(BlobName(PREFIX + name)))
        except UnavailableError as error:
            log.warning("leader.not_looked_up", why=error.why)
            return ""


def may_be_called(url: str) -> bool:
    """Whether a caller's token may be handed on to this address: by TLS, or without leaving the machine.

    The store is not asked to keep secrets; who can write it must not get tokens sent in clear through a network.
    """
    if len(url) > URL_CHARS_MAX:
        return False
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and _on_this_machine(host)))


def _on_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _url_in(blob: Blob | None) -> str:
    try:
        url = _decoder.decode(blob.data).url if blob else ""
    except msgspec.MsgspecError:
        return ""
    return url if may_be_called(url) else ""
