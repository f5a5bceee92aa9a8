"""Arguments that processes share: what is taken, and what can only be meant otherwise."""

from argparse import ArgumentTypeError
from collections.abc import Callable

import pytest

from federation.protocol.arguments import address, cluster_name, http_url, rate


@pytest.mark.parametrize(
    ("read", "text", "meant"),
    [
        (address, "127.0.0.1:0", ("127.0.0.1", 0)),
        (address, "[::1]:65535", ("::1", 65_535)),
        (cluster_name, "a" * 63, "a" * 63),
        (http_url, "https://lab.example.com:8443/muster/", "https://lab.example.com:8443/muster"),
        (http_url, "", ""),
        (rate, "0.01", 0.01),
    ],
)
def test_what_is_meant(read: Callable[[str], object], text: str, meant: object) -> None:
    assert read(text) == meant


@pytest.mark.parametrize(
    ("read", "text"),
    [
        *(
            (address, text)
            for text in ("8080", ":8080", "host:", "host:http", "host:-1", "host:65536", "host:²", "host:0065536")
        ),
        *((cluster_name, text) for text in ("", "A B", "c_1", "-c", "a" * 64)),
        *((http_url, text) for text in ("lab:1", "ftp://lab", "http://", "http://lab:port", "http://[")),
        *((rate, text) for text in ("0", "-1", "0.009", "nan", "inf", "fast")),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_text(read: Callable[[str], object], text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is no"):
        read(text)
