"""What is read from a bus that anybody may write to."""

import msgspec
import pytest

from federation.protocol.messages import Renewal, UnreadableMessageError, decode_message, encode_message

RENEWAL = Renewal(
    ask_id=1, cluster="c-1", epoch=1, renew_seq=7, ttl_s=0.001, holder_uid="uid", holder_boot="boot", nonce="n"
)


def test_a_renewal_with_the_shortest_of_times_is_read() -> None:
    assert decode_message(encode_message(RENEWAL)) == RENEWAL


@pytest.mark.parametrize("ttl_s", [0.0, -1.0, float("nan")])
def test_a_renewal_whose_time_is_no_positive_number_is_set_aside(ttl_s: float) -> None:
    with pytest.raises(UnreadableMessageError, match="ttl_s"):
        decode_message(encode_message(msgspec.structs.replace(RENEWAL, ttl_s=ttl_s)))
