"""What may be said of a node's GPUs: limits, and how older and newer guards and agents understand each other."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cluster_agents.kubernetes.guard_server import BODY_BYTES_MAX
from federation.protocol.gpus import (
    EVENTS_TOLD_MAX,
    FAULT_CHARS_MAX,
    FAULTS_TOLD_MAX,
    GPUS_TOLD_MAX,
    INSTANCE_FAULTS_TOLD_MAX,
    INSTANCES_TOLD_MAX,
    MEMORY_MIB_MAX,
    PROFILE_CHARS_MAX,
    TEXT_CHARS_MAX,
    Gpu,
    GpuEvent,
    GpuFault,
    GpuInstance,
    GpuReading,
    xid,
)
from federation.protocol.messages import BareGuardAsk, GuardAsk

FAULT = "f" * FAULT_CHARS_MAX
INSTANCE = GpuInstance(0xFFFF, "p" * PROFILE_CHARS_MAX, (FAULT,) * INSTANCE_FAULTS_TOLD_MAX)
LARGEST = Gpu(
    uuid="u" * TEXT_CHARS_MAX,
    product="p" * TEXT_CHARS_MAX,
    memory_mib=MEMORY_MIB_MAX,
    faults=(FAULT,) * FAULTS_TOLD_MAX,
    cut=True,
    instances=(INSTANCE,) * INSTANCES_TOLD_MAX,
)


def ask(*gpus: Gpu) -> GuardAsk:
    return GuardAsk(node="n" * 253, ask_id=2**62, gpus=gpus)


def read(message: GuardAsk) -> GuardAsk:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=GuardAsk)


def test_the_largest_ask_is_no_larger_than_agents_read() -> None:
    largest = ask(*(LARGEST,) * GPUS_TOLD_MAX)
    assert read(largest) == largest
    assert len(msgspec.msgpack.encode(largest)) <= BODY_BYTES_MAX == 64 * 1024


def changed(**fields: Any) -> GuardAsk:
    return ask(msgspec.structs.replace(LARGEST, **fields))


def instance(**fields: Any) -> GuardAsk:
    return changed(instances=(msgspec.structs.replace(INSTANCE, **fields),))


@pytest.mark.parametrize(
    "message",
    [
        ask(*(Gpu(),) * (GPUS_TOLD_MAX + 1)),
        changed(uuid="u" * (TEXT_CHARS_MAX + 1)),
        changed(product="p" * (TEXT_CHARS_MAX + 1)),
        changed(memory_mib=MEMORY_MIB_MAX + 1),
        changed(memory_mib=-1),
        changed(faults=("f",) * (FAULTS_TOLD_MAX + 1)),
        changed(faults=("f" * (FAULT_CHARS_MAX + 1),)),
        changed(faults=("",)),
        changed(instances=(INSTANCE,) * (INSTANCES_TOLD_MAX + 1)),
        instance(profile="p" * (PROFILE_CHARS_MAX + 1)),
        instance(id=0xFFFF + 1),
        instance(id=-2),
        instance(faults=("f",) * (INSTANCE_FAULTS_TOLD_MAX + 1)),
    ],
    ids=[
        "GPUs", "UUID", "product", "memory", "negative memory", "faults", "a fault's letters", "an empty fault",
        "instances", "profile", "instance id", "negative id", "instance faults",
    ],
)  # fmt: skip
def test_one_more_than_the_limit_is_not_read(message: GuardAsk) -> None:
    with pytest.raises(msgspec.ValidationError):
        read(message)


def test_a_reading_tells_of_so_many_events() -> None:
    event = GpuEvent("u", -1, "xid-79")
    for count, well in ((EVENTS_TOLD_MAX, True), (EVENTS_TOLD_MAX + 1, False)):
        line = msgspec.json.encode(GpuReading((LARGEST,), (event,) * count))
        if well:
            assert len(msgspec.json.decode(line, type=GpuReading).events) == EVENTS_TOLD_MAX
        else:
            with pytest.raises(msgspec.ValidationError):
                msgspec.json.decode(line, type=GpuReading)


def test_all_words_for_faults_are_short_enough_however_large_an_xid_is() -> None:
    words = [*GpuFault, xid(2**64 - 1)]
    assert max(map(len, words)) <= FAULT_CHARS_MAX
    assert (xid(79), xid(2**64 - 1)) == ("xid-79", "xid-999999")


# --- guards and agents of different versions --------------------------------------------------------------------------


def test_an_agent_that_knows_nothing_of_gpus_reads_a_newer_guards_ask() -> None:
    data = msgspec.msgpack.encode(ask(LARGEST))
    assert msgspec.msgpack.decode(data, type=BareGuardAsk) == BareGuardAsk(node="n" * 253, ask_id=2**62)


def test_a_guard_that_knows_nothing_of_gpus_says_nothing_of_them() -> None:
    data = msgspec.msgpack.encode(BareGuardAsk(node="n-1", ask_id=7))
    assert msgspec.msgpack.decode(data, type=GuardAsk) == GuardAsk(node="n-1", ask_id=7)
    assert msgspec.msgpack.encode(GuardAsk(node="n-1", ask_id=7)) == data


def test_an_agent_reads_what_it_knows_of_a_newer_guards_words() -> None:
    newer = {"kind": "GuardAsk", "node": "n-1", "ask_id": 7, "gpus": [{"uuid": "A", "faults": ["odd"], "watts": 700}]}
    assert read_raw(newer) == GuardAsk(node="n-1", ask_id=7, gpus=(Gpu(uuid="A", faults=("odd",)),))


def read_raw(message: dict[str, Any]) -> GuardAsk:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=GuardAsk)
