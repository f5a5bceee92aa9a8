"""What a guard keeps of its readings: Xids for as long as it lives, all else as last read."""

from __future__ import annotations

import pytest

from cluster_agents.node_guard.readings import DEVICES_KEPT_MAX, KEPT_PER_DEVICE_MAX, Readings
from federation.protocol.gpus import FAULTS_TOLD_MAX, WHOLE_GPU, Gpu, GpuEvent, GpuInstance, GpuReading, xid

A, B = Gpu(uuid="A", product="H200"), Gpu(uuid="B", product="H200")
CUT = Gpu(uuid="C", cut=True, instances=(GpuInstance(1, "1g.18gb"), GpuInstance(2, "1g.18gb")))


def event(uuid: str, fault: str, instance: int = WHOLE_GPU) -> GpuEvent:
    return GpuEvent(uuid, instance, fault)


def faults(readings: Readings) -> list[tuple[str, ...]]:
    return [gpu.faults for gpu in readings.told or ()]


@pytest.fixture
def readings() -> Readings:
    found = Readings()
    found.read(GpuReading((A, B)))
    return found


def test_before_the_first_reading_nothing_is_known() -> None:
    readings = Readings()
    readings.silent()
    assert (readings.told, readings.unhealthy) == (None, 0)


def test_an_xid_counts_in_all_readings_that_follow(readings: Readings) -> None:
    readings.read(GpuReading((A, B), (event("B", "xid-79"),)))
    readings.read(GpuReading((A, B)))
    assert (faults(readings), readings.unhealthy) == ([(), ("xid-79",)], 1)


def test_it_counts_beside_what_is_read_and_what_is_read_goes(readings: Readings) -> None:
    sick = Gpu(uuid="B", faults=("ecc-uncorrectable",))
    readings.read(GpuReading((A, sick), (event("B", "xid-48"),)))
    assert faults(readings) == [(), ("ecc-uncorrectable", "xid-48")]
    readings.read(GpuReading((A, B)))
    assert faults(readings) == [(), ("xid-48",)]


def test_an_xid_of_an_instance_counts_for_it_alone(readings: Readings) -> None:
    readings.read(GpuReading((CUT,), (event("C", "xid-95", 2),)))
    (gpu,) = readings.told or ()
    assert (gpu.faults, [one.faults for one in gpu.instances or ()]) == ((), [(), ("xid-95",)])
    assert readings.unhealthy == 1


def test_while_no_reading_comes_no_gpu_is_well_and_what_was_known_stays_known(readings: Readings) -> None:
    readings.read(GpuReading((A, B), (event("B", "xid-79"),)))
    readings.silent()
    assert faults(readings) == [("no-answer",), ("no-answer", "xid-79")]
    readings.read(GpuReading((A, B)))
    assert faults(readings) == [(), ("xid-79",)]


def test_where_readings_have_ended_nothing_is_known_but_xids(readings: Readings) -> None:
    readings.read(GpuReading((A, B), (event("B", "xid-79"),)))
    readings.lost()
    assert readings.told is None
    readings.silent()
    assert readings.told is None
    readings.read(GpuReading((A, B)))
    assert faults(readings) == [(), ("xid-79",)]


def test_of_one_gpu_so_many_xids_are_kept_and_no_more(readings: Readings) -> None:
    storm = tuple(event("A", xid(number)) for number in range(KEPT_PER_DEVICE_MAX + 1))
    readings.read(GpuReading((A, B), storm))
    assert faults(readings)[0] == ("xid-0", "xid-1", "xid-2", "xid-3")


def test_of_so_many_gpus_xids_are_kept_and_no_more(readings: Readings) -> None:
    for number in range(DEVICES_KEPT_MAX):
        readings.read(GpuReading((A,), (event(f"x-{number}", "xid-79"),)))
    readings.read(GpuReading((A,), (event("A", "xid-79"), event("x-0", "xid-80"))))
    assert faults(readings) == [()]
    last = Gpu(uuid=f"x-{DEVICES_KEPT_MAX - 1}")
    readings.read(GpuReading((Gpu(uuid="x-0"), last)))
    assert faults(readings) == [("xid-79", "xid-80"), ("xid-79",)]


def test_more_faults_than_can_be_told_are_cut_off(readings: Readings) -> None:
    sick = Gpu(uuid="A", faults=tuple(f"fault-{number}" for number in range(FAULTS_TOLD_MAX)))
    readings.read(GpuReading((sick,), (event("A", "xid-79"),)))
    assert faults(readings) == [sick.faults]
