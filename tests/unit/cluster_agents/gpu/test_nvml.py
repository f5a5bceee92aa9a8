"""What NVML tells becomes readings: the real `pynvml` on a library that is not a driver's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from federation.protocol.gpus import EVENTS_TOLD_MAX, GPUS_TOLD_MAX
from tests.unit.cluster_agents.gpu.stub import DOUBLE_BIT, Obeying, Stub

WELL = {"product": "NVIDIA H200", "memory_mib": 143_771}
SOON = "wait 5"  # returns as soon as there is something
NOW = "wait 0"


def faults(nvml: Obeying) -> list[list[str]]:
    return [gpu.get("faults", []) for gpu in nvml.does("read")["gpus"]]


@pytest.fixture(scope="module")
def process(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stub, Obeying]]:
    stub = Stub(library, tmp_path_factory.mktemp("nvml") / "answers")
    found = Obeying(stub)
    yield stub, found
    found.end()


@pytest.fixture
def stub(process: tuple[Stub, Obeying]) -> Stub:
    """Two GPUs that are well."""
    process[0].clear()
    process[0].set(gpus=2)
    return process[0]


@pytest.fixture
def nvml(stub: Stub, process: tuple[Stub, Obeying]) -> Obeying:
    return process[1]


@pytest.fixture
def started(nvml: Obeying) -> Obeying:
    assert nvml.does("start") is None
    return nvml


def test_gpus_that_are_well_are_told_by_uuid_product_and_memory(started: Obeying) -> None:
    assert started.does("read") == {"gpus": [{"uuid": "GPU-0", **WELL}, {"uuid": "GPU-1", **WELL}], "events": []}


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ({"ecc_1": 2}, "ecc-uncorrectable"),
        ({"pending_1": 1}, "row-remap-pending"),
        ({"failed_1": 1}, "row-remap-failed"),
        ({"unrepairable_1": 1}, "memory-unrepairable"),
        ({"lost_1": 1}, "gpu-lost"),
        ({"error_1": 16}, "reset-required"),
        ({"error_1": 999}, "nvml-error"),
    ],
    ids=["ecc", "remap pending", "remap failed", "unrepairable", "lost", "reset required", "unknown error"],
)
def test_what_is_wrong_with_a_gpu_has_a_word_and_goes_when_it_is_mended(
    stub: Stub, started: Obeying, answer: dict[str, int], fault: str
) -> None:
    assert faults(started) == [[], []]
    stub.set(**answer)
    assert faults(started) == [[], [fault]]
    stub.set(**dict.fromkeys(answer))
    assert faults(started) == [[], []]


def test_several_faults_are_told_in_order(stub: Stub, started: Obeying) -> None:
    stub.set(ecc_0=1, failed_0=1, pending_0=1)
    assert faults(started)[0] == ["ecc-uncorrectable", "row-remap-failed", "row-remap-pending"]


def test_rows_that_were_remapped_are_no_fault(stub: Stub, started: Obeying) -> None:
    stub.set(remapped_0=12)
    assert faults(started) == [[], []]


def test_a_gpu_that_is_lost_keeps_the_name_by_which_it_was_known(stub: Stub, started: Obeying) -> None:
    started.does("read")
    stub.set(lost_1=1)
    assert started.does("read")["gpus"][1] == {"uuid": "GPU-1", **WELL, "faults": ["gpu-lost"]}


def test_a_gpu_that_is_lost_from_the_start_has_no_name(stub: Stub, nvml: Obeying) -> None:
    stub.set(lost_1=1)
    nvml.does("start")
    assert nvml.does("read")["gpus"] == [{"uuid": "GPU-0", **WELL}, {"faults": ["gpu-lost"]}]


def test_a_gpu_that_is_not_shown_to_this_container_counts_as_well(stub: Stub, started: Obeying) -> None:
    stub.set(hidden_1=1)
    assert started.does("read")["gpus"][1] == {}


def test_gpus_beyond_the_limit_are_left_out(stub: Stub, started: Obeying) -> None:
    stub.set(gpus=GPUS_TOLD_MAX)
    assert len(started.does("read")["gpus"]) == GPUS_TOLD_MAX
    stub.set(gpus=GPUS_TOLD_MAX + 1)
    assert len(started.does("read")["gpus"]) == GPUS_TOLD_MAX


# --- instances --------------------------------------------------------------------------------------------------------


def test_a_gpu_that_is_cut_tells_its_instances_by_id_and_profile(stub: Stub, started: Obeying) -> None:
    stub.set(mig_0=1, mig0_0="1g.18gb", mig1_0="3g.71gb", mig4_0="1g.18gb+me")
    cut, whole = started.does("read")["gpus"]
    assert cut == {
        "uuid": "GPU-0",
        **WELL,
        "cut": True,
        "instances": [[7, "1g.18gb", []], [8, "3g.71gb", []], [11, "1g.18gb+me", []]],
    }
    assert whole == {"uuid": "GPU-1", **WELL}


def test_one_that_is_cut_and_may_not_be_looked_into_says_that_it_is_not_known_how(stub: Stub, started: Obeying) -> None:
    stub.set(mig_0=1, mighidden_0=1)
    assert started.does("read")["gpus"][0] == {"uuid": "GPU-0", **WELL, "cut": True, "instances": None}


# --- events -----------------------------------------------------------------------------------------------------------


def told(nvml: Obeying) -> list[Any]:
    return list(nvml.does("read")["events"])


def test_an_xid_is_heard_of_at_once_and_told_once(stub: Stub, started: Obeying) -> None:
    assert started.does(NOW) is False
    stub.happens(1, 79)
    assert started.does(SOON) is True
    assert told(started) == [["GPU-1", -1, "xid-79"]]
    assert told(started) == []


@pytest.mark.parametrize("number", [13, 31, 43, 45, 68, 109])
def test_an_xid_that_a_program_brings_on_itself_does_not_count(stub: Stub, started: Obeying, number: int) -> None:
    stub.happens(0, number)
    assert started.does(SOON) is False
    assert (told(started), faults(started)) == ([], [[], []])


def test_an_xid_of_one_instance_is_told_of_it_alone(stub: Stub, started: Obeying) -> None:
    stub.happens(0, 48, instance=7)
    assert started.does(SOON) is True
    assert told(started) == [["GPU-0", 7, "xid-48"]]


def test_a_double_bit_error_is_told_where_the_driver_counts_none(stub: Stub, started: Obeying) -> None:
    stub.happens(1, 0, kind=DOUBLE_BIT)
    assert started.does(SOON) is True
    assert told(started) == [["GPU-1", -1, "ecc-uncorrectable"]]


def test_the_xid_of_a_gpu_that_is_lost_is_told_of_that_gpu(stub: Stub, started: Obeying) -> None:
    stub.set(lost_1=1)
    stub.happens(1, 79)
    assert started.does(SOON) is True
    assert told(started) == [["GPU-1", -1, "xid-79"]]


def test_of_which_gpu_it_was_when_nobody_knows_it_counts_for_all(stub: Stub, nvml: Obeying) -> None:
    stub.set(lost_1=1)  # from the start: it never had a name
    nvml.does("start")
    stub.happens(1, 79)
    assert nvml.does(SOON) is True
    assert told(nvml) == [["GPU-0", -1, "xid-79"]]


def test_a_storm_of_one_fault_is_told_once_and_one_of_many_within_a_limit(stub: Stub, started: Obeying) -> None:
    for _ in range(3):
        stub.happens(0, 79)
    for number in range(EVENTS_TOLD_MAX + 1):
        stub.happens(0, 1_000 + number)
    for _ in range(EVENTS_TOLD_MAX + 4):
        assert started.does(SOON) is True
    found = told(started)
    assert found[:2] == [["GPU-0", -1, "xid-79"], ["GPU-0", -1, "xid-1000"]]
    assert len(found) == EVENTS_TOLD_MAX


def test_after_an_error_the_next_reading_listens_again(stub: Stub, started: Obeying) -> None:
    stub.set(waiterror=15)
    assert (started.does(SOON), started.does("listens")) == (False, False)
    stub.set(waiterror=None)
    started.does("read")
    stub.happens(0, 79)
    assert (started.does("listens"), started.does(SOON)) == (True, True)


# --- where there is nothing to read -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "why"),
    [({"gpus": 0}, "the driver knows no GPU"), ({"init": 9}, "Driver Not Loaded"), ({"gone": 9}, "Driver Not Loaded")],
    ids=["no GPU", "no driver", "no count"],
)
def test_without_gpus_it_says_why(stub: Stub, nvml: Obeying, answer: dict[str, int], why: str) -> None:
    stub.set(**answer)
    assert nvml.does("start") == {"none": why}


def test_a_driver_that_goes_away_ends_the_readings(stub: Stub, started: Obeying) -> None:
    started.does("read")
    stub.set(gone=9)
    assert started.does("read") == {"none": "Driver Not Loaded"}


def test_without_a_library_it_says_so(tmp_path: Path) -> None:
    nvml = Obeying(Stub(tmp_path, tmp_path / "answers"))
    try:
        assert nvml.does("start") == {"none": "NVML Shared Library Not Found"}
    finally:
        nvml.end()


@pytest.fixture
def old(old_library: Path, tmp_path: Path) -> Iterator[Obeying]:
    """A driver without remapped rows, events and a flag for memory."""
    stub = Stub(old_library, tmp_path / "answers")
    stub.set(gpus=2, ecc_1=1)
    found = Obeying(stub)
    found.does("start")
    yield found
    found.end()


def test_what_an_old_driver_cannot_tell_counts_as_well(old: Obeying) -> None:
    assert (old.does("listens"), old.does(SOON)) == (False, False)
    assert faults(old) == [[], ["ecc-uncorrectable"]]
