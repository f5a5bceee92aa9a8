"""NRI's bytes: what is written is read again, however it is cut, and what is none is refused."""

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_agents.node_guard.wire import (
    FRAME_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    Decoder,
    Kind,
    Message,
    Side,
    WireError,
    encoded,
)

MESSAGES = st.builds(
    Message, st.sampled_from(Side), st.integers(0, 2**32 - 1), st.sampled_from(Kind), st.binary(max_size=50)
)


def fed(*pieces: bytes) -> list[Message]:
    decoder = Decoder()
    return [message for piece in pieces for message in decoder.feed(piece)]


def body(size: int, *, kind: int = 1, data: bytes = b"") -> bytes:
    """A message on a stream, by hand: it may claim what it has not."""
    return struct.pack(">IIBB", size, 1, kind, 0) + data


def frame(data: bytes, *, side: int = 1, size: int | None = None) -> bytes:
    return struct.pack(">II", side, len(data) if size is None else size) + data


@given(st.lists(MESSAGES, max_size=5))
def test_what_is_written_is_read_again(messages: list[Message]) -> None:
    assert fed(b"".join(map(encoded, messages))) == messages


@given(st.lists(MESSAGES, min_size=1, max_size=5), st.lists(st.integers(0, 300), max_size=8))
def test_how_the_bytes_are_cut_makes_no_difference(messages: list[Message], cuts: list[int]) -> None:
    data = b"".join(map(encoded, messages))
    at = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    assert fed(*(data[start:end] for start, end in pairwise(at))) == messages


def test_a_message_may_come_in_frames_between_those_of_the_other_connection() -> None:
    """A runtime writes the head of a message and its body apart."""
    heads = [frame(body(2), side=side) for side in Side]
    bodies = [frame(data, side=side) for side, data in zip(Side, (b"ab", b"cd"), strict=True)]
    wanted = [Message(Side.PLUGIN, 1, Kind.REQUEST, b"ab"), Message(Side.RUNTIME, 1, Kind.REQUEST, b"cd")]
    assert fed(*heads, *bodies) == wanted


def test_one_frame_may_hold_several_messages() -> None:
    assert [one.data for one in fed(frame(body(1, data=b"a") + body(0) + body(2, data=b"bc")))] == [b"a", b"", b"bc"]


def test_the_largest_message_is_read_and_one_byte_more_is_refused() -> None:
    largest = Message(Side.PLUGIN, 3, Kind.REQUEST, bytes(MESSAGE_BYTES_MAX))
    assert fed(encoded(largest)) == [largest]
    with pytest.raises(WireError, match=str(MESSAGE_BYTES_MAX + 1)):
        fed(frame(body(MESSAGE_BYTES_MAX + 1)))


def test_a_frame_is_refused_by_its_head_before_its_bytes_are_kept() -> None:
    assert fed(frame(b"", size=FRAME_BYTES_MAX)) == []
    with pytest.raises(WireError, match=str(FRAME_BYTES_MAX + 1)):
        fed(frame(b"", size=FRAME_BYTES_MAX + 1))


@pytest.mark.parametrize("side", [0, 3, 2**32 - 1])
def test_a_connection_that_there_is_not_is_refused(side: int) -> None:
    with pytest.raises(WireError, match=f"connection {side}"):
        fed(frame(b"", side=side))


@pytest.mark.parametrize("kind", [0, 3, 255])
def test_a_kind_of_message_that_there_is_not_is_refused(kind: int) -> None:
    with pytest.raises(WireError, match=f"kind {kind}"):
        fed(frame(body(0, kind=kind)))


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_waited_for_and_does_nothing_else(data: bytes) -> None:
    try:
        fed(data)
    except WireError:
        return
