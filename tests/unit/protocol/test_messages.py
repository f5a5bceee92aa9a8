"""What is read from a bus that anybody may write to."""

import msgspec
import pytest

from federation.protocol.messages import (
    COUNT_MAX,
    HOLDER_CHARS_MAX,
    LeaseBody,
    Renewal,
    UnreadableMessageError,
    VerdictAnswer,
    decode_answers,
    decode_lease,
    decode_message,
    encode_answers,
    encode_lease,
    encode_message,
)

RENEWAL = Renewal(
    ask_id=1, cluster="c-1", epoch=1, renew_seq=7, ttl_s=0.001, holder_uid="uid", holder_boot="boot", nonce="n"
)


def test_a_renewal_with_the_shortest_of_times_is_read() -> None:
    assert decode_message(encode_message(RENEWAL)) == RENEWAL


@pytest.mark.parametrize("ttl_s", [0.0, -1.0, float("nan")])
def test_a_renewal_whose_time_is_no_positive_number_is_set_aside(ttl_s: float) -> None:
    with pytest.raises(UnreadableMessageError, match="ttl_s"):
        decode_message(encode_message(msgspec.structs.replace(RENEWAL, ttl_s=ttl_s)))


@pytest.mark.parametrize("field", ["epoch", "renew_seq"])
@pytest.mark.parametrize("count", [0, COUNT_MAX, -1, COUNT_MAX + 1])
def test_a_renewal_counts_no_further_than_a_server_can_count_on_from(field: str, count: int) -> None:
    """A recovering fleet takes the epoch of its agents: one more than the largest integer fits into no lease, and every
    leader that fenced that cluster would have ended."""
    message = msgspec.structs.replace(RENEWAL, **{field: count})
    if 0 <= count <= COUNT_MAX:
        assert decode_message(encode_message(message)) == message
    else:
        with pytest.raises(UnreadableMessageError, match=field):
            decode_message(encode_message(message))


@pytest.mark.parametrize("field", ["holder_uid", "holder_boot", "nonce"])
def test_a_renewal_leaves_no_longer_texts_in_its_lease(field: str) -> None:
    longest = msgspec.structs.replace(RENEWAL, **{field: "x" * HOLDER_CHARS_MAX})
    assert decode_message(encode_message(longest)) == longest
    with pytest.raises(UnreadableMessageError, match=field):
        decode_message(encode_message(msgspec.structs.replace(RENEWAL, **{field: "x" * (HOLDER_CHARS_MAX + 1)})))


def test_a_text_that_is_no_unicode_makes_a_message_or_a_lease_unreadable() -> None:
    """A damaged lease ended every server that looked at it; such a message was answered as a fault of the server."""
    for whole, read in (
        (encode_message(msgspec.structs.replace(RENEWAL, nonce="zzz")), decode_message),
        (encode_answers([VerdictAnswer(ask_id=1, uid="zzz", token="l.1", verdict="Bound")]), decode_answers),
        (encode_lease(LeaseBody(cluster="zzz", state="Active", epoch=1)), decode_lease),
    ):
        with pytest.raises(UnreadableMessageError, match="utf-8"):
            read(whole.replace(b"zzz", b"z\xff\xff"))
