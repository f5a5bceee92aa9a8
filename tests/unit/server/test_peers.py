"""Where a follower finds its leader, and what it takes from the leader's answers."""

from __future__ import annotations

import asyncio

import pytest

from federation.server.forwarding import _newest_position
from federation.server.peers import URL_CHARS_MAX, Peers, may_be_called
from storage.backends.memory import MemoryStore
from storage.blob import BlobName


def peers(store: MemoryStore, name: str, url: str, boot: str = "1") -> Peers:
    return Peers(store, name, url, nonce=f"{name}-{boot}")


def test_a_server_is_found_where_it_said_it_listens_also_after_it_moved() -> None:
    store = MemoryStore()
    asyncio.run(peers(store, "s-1", "https://a:1").announce())
    assert asyncio.run(peers(store, "s-2", "https://b:1").url_of("s-1")) == "https://a:1"
    asyncio.run(peers(store, "s-1", "https://a:2", boot="2").announce())
    assert asyncio.run(peers(store, "s-2", "https://b:1").url_of("s-1")) == "https://a:2"


def test_a_server_that_said_nothing_is_nowhere() -> None:
    store = MemoryStore()
    asyncio.run(peers(store, "s-1", "").announce())
    assert asyncio.run(peers(store, "s-2", "https://b:1").url_of("s-1")) == ""


def test_an_address_that_did_not_answer_is_looked_up_again() -> None:
    store = MemoryStore()
    mine = peers(store, "s-2", "https://b:1")
    assert asyncio.run(mine.url_of("s-1")) == ""
    asyncio.run(peers(store, "s-1", "https://a:1").announce())
    assert asyncio.run(mine.url_of("s-1")) == ""
    mine.forget("s-1")
    assert asyncio.run(mine.url_of("s-1")) == "https://a:1"


@pytest.mark.parametrize(
    "data", [b"", b"{}", b'{"url":"ftp://a","nonce":"n"}', b'{"url":"https://%s","nonce":"n"}' % (b"a" * 2_049)]
)
def test_what_is_no_address_is_not_called(data: bytes) -> None:
    store = MemoryStore()
    store.create(BlobName("servers/s-1"), data)
    assert asyncio.run(peers(store, "s-2", "https://b:1").url_of("s-1")) == ""


@pytest.mark.parametrize(
    ("answer", "position"),
    [
        (b'{"uid": "l.8", "position": 8}', 8),
        (b'{"items": [{"status": 201, "position": 8}, {"status": 409}, {"position": 24}]}', 24),
        (b'{"kind": "x"}', 0),
        (b"[]", 0),
        (b"\x81\xa4kind", 0),
        (b"", 0),
    ],
    ids=["one", "bulk", "none", "no mapping", "msgpack", "nothing"],
)
def test_the_newest_position_of_an_answer(answer: bytes, position: int) -> None:
    assert _newest_position(answer) == position


@pytest.mark.parametrize(
    ("url", "may"),
    [
        ("https://muster.example:443", True),
        ("http://127.0.0.1:80", True),
        ("http://[::1]:80", True),
        ("http://localhost:80", True),
        ("http://10.0.0.1:80", False),
        ("http://0.0.0.0:80", False),
        ("http://127.0.0.1.example:80", False),
        ("http://muster.example", False),
        ("https://", False),
        ("http://[", False),
        ("ftp://127.0.0.1", False),
        ("", False),
        ("https://" + "a" * (URL_CHARS_MAX - 8), True),
        ("https://" + "a" * (URL_CHARS_MAX - 7), False),
    ],
)
def test_tokens_are_handed_on_by_tls_or_within_the_machine(url: str, may: bool) -> None:
    assert may_be_called(url) is may
