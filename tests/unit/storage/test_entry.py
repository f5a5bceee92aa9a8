"""The bytes of an entry: what is written can be read, what was damaged is noticed, and old bytes load forever."""

import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.entry import (
    ENTRY_RAW_BYTES_MAX,
    GENESIS,
    POSITIONS_PER_ENTRY,
    RECORD_BYTES_MAX,
    SEQ_MAX,
    EntryHeader,
    EntryKind,
    batch_length,
    decode_entry,
    digest,
    encode_entry,
    entry_name,
    expect_follows,
    position,
    seq_of,
    seq_of_entry,
)
from storage.errors import CorruptError, LimitError, UnsupportedFormatError

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "journal"


def header(seq: int = 7, *, count: int = 0, kind: EntryKind = EntryKind.BATCH) -> EntryHeader:
    return EntryHeader(
        seq=seq, term=3, kind=kind, writer="server-1", nonce="n-1", prev_digest=bytes(range(32)), count=count
    )


def entry(*records: bytes, seq: int = 7) -> bytes:
    return encode_entry(header(seq, count=len(records)), records)


def framed(head: bytes, payload: bytes = b"") -> bytes:
    """An entry with a right checksum around any header."""
    rest = len(head).to_bytes(4, "big") + head + payload
    return b"MJE\n" + zlib.crc32(rest).to_bytes(4, "big") + rest


@given(
    records=st.lists(st.binary(max_size=300), max_size=20).map(tuple),
    seq=st.integers(1, SEQ_MAX),
    kind=st.sampled_from(EntryKind),
)
def test_what_is_written_reads_back(records: tuple[bytes, ...], seq: int, kind: EntryKind) -> None:
    data = encode_entry(header(seq, count=len(records), kind=kind), records)
    decoded = decode_entry(data, seq)
    assert decoded.records == records
    assert decoded.digest == digest(data)
    assert (decoded.header.seq, decoded.header.kind, decoded.header.term) == (seq, kind, 3)


@given(data=st.data())
def test_any_changed_byte_is_noticed(data: st.DataObject) -> None:
    whole = bytearray(entry(b"one", b"two" * 200))
    index = data.draw(st.integers(0, len(whole) - 1))
    whole[index] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CorruptError):
        decode_entry(bytes(whole), 7)


@given(length=st.integers(0, 100))
def test_a_torn_entry_is_noticed(length: int) -> None:
    whole = entry(b"one", b"two" * 200)
    with pytest.raises(CorruptError):
        decode_entry(whole[: min(length, len(whole) - 1)], 7)


@given(data=st.binary(max_size=200))
def test_foreign_bytes_are_corrupt_and_nothing_worse(data: bytes) -> None:
    for foreign in (data, b"MJE\n" + data, framed(data), framed(msgspec.msgpack.encode(header(count=1)), data)):
        with pytest.raises(CorruptError):
            decode_entry(foreign, 7)


def test_an_entry_under_another_number_is_corrupt() -> None:
    with pytest.raises(CorruptError) as caught:
        decode_entry(entry(b"one", seq=7), 8)
    assert caught.value.seq == 8


def test_a_wrong_count_is_corrupt() -> None:
    head = msgspec.msgpack.encode(header(count=2))
    with pytest.raises(CorruptError):
        decode_entry(framed(head, msgspec.msgpack.encode([b"one"])), 7)


def test_a_payload_that_unpacks_without_end_is_refused() -> None:
    head = msgspec.msgpack.encode(msgspec.structs.replace(header(count=1), codec="zlib"))
    bomb = zlib.compress(bytes(ENTRY_RAW_BYTES_MAX + 1))
    with pytest.raises(CorruptError):
        decode_entry(framed(head, bomb), 7)


@pytest.mark.parametrize("damage", [lambda payload: payload + b"more", lambda payload: payload[:-1]])
def test_a_packed_payload_must_end_where_it_says(damage: Callable[[bytes], bytes]) -> None:
    head = msgspec.msgpack.encode(msgspec.structs.replace(header(count=1), codec="zlib"))
    payload = zlib.compress(msgspec.msgpack.encode([b"one"]))
    assert decode_entry(framed(head, payload), 7).records == (b"one",)
    with pytest.raises(CorruptError):
        decode_entry(framed(head, damage(payload)), 7)


def test_fields_of_a_later_version_are_ignored() -> None:
    fields = msgspec.to_builtins(header(count=1), builtin_types=(bytes,)) | {"colour": "blue"}
    decoded = decode_entry(framed(msgspec.msgpack.encode(fields), msgspec.msgpack.encode([b"one"])), 7)
    assert decoded.records == (b"one",)


def test_an_entry_of_a_later_schema_says_so() -> None:
    fields = msgspec.to_builtins(header(), builtin_types=(bytes,)) | {"schema_version": 2, "kind": "unheard of"}
    with pytest.raises(UnsupportedFormatError) as caught:
        decode_entry(framed(msgspec.msgpack.encode(fields)), 7)
    assert caught.value.name == entry_name(7)


def test_an_entry_follows_the_one_whose_digest_it_names() -> None:
    decoded = decode_entry(entry(), 7)
    expect_follows(decoded, bytes(range(32)))
    with pytest.raises(CorruptError):
        expect_follows(decoded, GENESIS)


def test_large_batches_are_packed_and_small_ones_left_alone() -> None:
    assert decode_entry(entry(b"x"), 7).header.codec == "none"
    packed = entry(*[b"decision " * 20] * 100)
    assert decode_entry(packed, 7).header.codec == "zlib"
    assert len(packed) < 1_000


def test_names_need_no_listing_and_never_change() -> None:
    assert entry_name(1) == "journal/09/0000000000000001"
    assert entry_name(2) == "journal/03/0000000000000002"
    assert entry_name(123_456_789) == "journal/0b/0000000123456789"


@pytest.mark.parametrize("seq", [1, 16, 123_456_789, 2**40])
def test_an_entrys_name_tells_its_number(seq: int) -> None:
    assert seq_of_entry(entry_name(seq)) == seq


@pytest.mark.parametrize(
    "name", ["journal/09/1", "journal/00/0000000000000001", "leases/l/0000000000000001", "journal/09/", ""]
)
def test_what_is_no_entrys_name_tells_none(name: str) -> None:
    assert seq_of_entry(name) is None


def test_names_are_spread_evenly_over_sixteen_prefixes() -> None:
    shares = Counter(entry_name(seq).split("/")[1] for seq in range(1, 1_601))
    assert len(shares) == 16
    assert max(shares.values()) <= 102
    assert min(shares.values()) >= 98


def test_positions_grow_with_entry_and_index_and_fit_64_bits() -> None:
    assert position(1) == 8_192
    assert position(1, 8_191) + 1 == position(2)
    assert seq_of(position(5, 17)) == 5
    assert position(SEQ_MAX, POSITIONS_PER_ENTRY - 1) == 2**63 - 1


@pytest.mark.parametrize(("seq", "index"), [(0, 0), (SEQ_MAX + 1, 0), (1, -1), (1, POSITIONS_PER_ENTRY)])
def test_positions_outside_their_range_are_refused(seq: int, index: int) -> None:
    with pytest.raises(LimitError):
        position(seq, index)


def test_4096_records_make_an_entry_and_one_more_does_not() -> None:
    assert len(decode_entry(entry(*[b"r"] * 4_096), 7).records) == 4_096
    with pytest.raises(LimitError):
        entry(*[b"r"] * 4_097)
    assert batch_length([b"r"] * 4_097) == 4_096


def incompressible(length: int, salt: int) -> bytes:
    blocks = (digest(b"%d/%d" % (salt, index)) for index in range(length // 32 + 1))
    return b"".join(blocks)[:length]


def test_a_batch_as_long_as_advised_always_fits() -> None:
    records = [incompressible(1_000, salt) for salt in range(1_100)]
    length = batch_length(records)
    assert length == 1_042
    assert len(decode_entry(entry(*records[:length]), 7).records) == 1_042


def test_a_payload_beyond_one_mebibyte_is_refused() -> None:
    records = [incompressible(300_000, salt) for salt in range(4)]
    with pytest.raises(LimitError):
        entry(*records)
    assert batch_length(records) == 3


def test_the_largest_record_makes_a_batch_and_a_larger_one_none() -> None:
    assert batch_length([bytes(RECORD_BYTES_MAX)] * 2) == 1
    with pytest.raises(LimitError):
        batch_length([bytes(RECORD_BYTES_MAX + 1)])
    assert batch_length([]) == 0


@pytest.mark.parametrize(
    ("file", "seq", "kind", "records"),
    [
        ("v1-term.bin", 1, EntryKind.TERM, ()),
        ("v1-batch-plain.bin", 2, EntryKind.BATCH, (b"one", b"", b"\x00\xff")),
        ("v1-batch-zlib.bin", 3, EntryKind.BATCH, tuple(b"record %d" % number for number in range(100))),
        ("v1-heartbeat.bin", 4, EntryKind.HEARTBEAT, ()),
    ],
)
def test_entries_of_released_versions_load_forever(
    file: str, seq: int, kind: EntryKind, records: tuple[bytes, ...]
) -> None:
    decoded = decode_entry((GOLDEN / file).read_bytes(), seq)
    assert decoded.header.kind is kind
    assert decoded.header.term == 1
    assert decoded.header.writer == "server-1"
    assert decoded.header.nonce == f"golden-{seq}"
    assert decoded.records == records


def test_the_golden_entries_form_a_chain() -> None:
    tail = GENESIS
    for seq, file in enumerate(("v1-term.bin", "v1-batch-plain.bin", "v1-batch-zlib.bin", "v1-heartbeat.bin"), 1):
        decoded = decode_entry((GOLDEN / file).read_bytes(), seq)
        expect_follows(decoded, tail)
        tail = decoded.digest
