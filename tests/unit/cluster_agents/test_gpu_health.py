"""An agent whose guards read GPUs: what is unhealthy is reported, gets nothing new, and keeps what runs."""

from __future__ import annotations

from typing import Any

from cluster_agents.core.events import GuardAsked
from cluster_agents.core.gpus_heard import READINGS_COUNT_FOR_S
from cluster_agents.simkube.kubelet import types as kt
from federation.protocol.gpus import Gpu
from federation.protocol.messages import GuardAsk
from placement.model import FenceStrength
from tests.unit.cluster_agents.rig import Rig, node

XID: tuple[str, ...] = ("xid-79",)


def gpus(*sick: int, count: int = 8, **told: Any) -> tuple[Gpu, ...]:
    return tuple(Gpu(uuid=f"GPU-{at}", faults=XID if at in sick else (), **told) for at in range(count))


def reads(rig: Rig, name: str, told: tuple[Gpu, ...] | None) -> None:
    """The node's guard asks, and says this of its GPUs; the next report leaves."""
    rig._guards[0] = lambda _: None
    rig.tell(GuardAsked(0, GuardAsk(node=name, ask_id=1, gpus=told)))
    rig.advance(2.0)


def reported(rig: Rig) -> dict[str, tuple[int, int, int]]:
    """By all reports: GPUs of each node, the free ones, and the unhealthy ones."""
    found: dict[str, tuple[int, int, int]] = {}
    for report in rig.reports:
        rows, ill = report.rows, report.node_kinds.unhealthy
        found |= {name: (rows.gpus[at], rows.gpus_free[at], ill[at] if ill else 0) for at, name in enumerate(rows.name)}
    return found


def refused(rig: Rig, **group: Any) -> list[str]:
    """What is heard of a group of one pod that is placed here now."""
    token = rig.federation.place(pods=1, **group)
    rig.ring()
    rig.advance(10.0)
    return rig.federation.heard(token)


def small(**config: Any) -> Rig:
    return Rig(node("n-1"), **config).ready()


def test_a_gpu_that_falls_sick_is_reported_as_unhealthy_and_gets_nothing_until_it_is_well() -> None:
    rig = small()
    reads(rig, "n-1", gpus())
    assert reported(rig) == {"n-1": (8, 8, 0)}
    reads(rig, "n-1", gpus(3))
    assert reported(rig) == {"n-1": (7, 7, 1)}
    assert refused(rig, gpus=8) == ["Refused"]
    reads(rig, "n-1", gpus())
    assert reported(rig) == {"n-1": (8, 8, 0)}
    assert refused(rig, gpus=8) == ["Bound", "Running"]


def test_a_gang_goes_to_the_node_whose_gpus_are_well() -> None:
    rig = Rig().ready()
    reads(rig, "n-1", gpus(0))
    token = rig.federation.place(pods=1, gpus=8)
    rig.run(token)
    assert [pod["spec"]["nodeName"] for pod in rig.pods(token)] == ["n-2"]


def test_what_is_left_of_a_node_is_used() -> None:
    rig = small()
    reads(rig, "n-1", gpus(0))
    assert refused(rig, gpus=7) == ["Bound", "Running"]
    assert reported(rig) == {"n-1": (7, 0, 1)}


def test_a_gpu_that_kubelet_and_guard_have_both_given_up_is_missed_once() -> None:
    rig = small()
    rig.tell_kubelets(kt.GpusLost("n-1", frozenset({3})))
    rig.advance(2.0)
    assert reported(rig) == {"n-1": (7, 7, 1)}  # by its kubelet alone
    reads(rig, "n-1", gpus(3))
    assert reported(rig) == {"n-1": (7, 7, 1)}
    assert refused(rig, gpus=7) == ["Bound", "Running"]


def test_the_lower_word_holds() -> None:
    rig = small()
    rig.tell_kubelets(kt.GpusLost("n-1", frozenset({3, 4})))
    reads(rig, "n-1", gpus(3))
    assert reported(rig) == {"n-1": (6, 6, 2)}
    reads(rig, "n-1", gpus(3, 4, 5))
    assert reported(rig) == {"n-1": (5, 5, 3)}


def test_no_guard_makes_a_node_larger_than_its_kubelet_says() -> None:
    rig = small()
    reads(rig, "n-1", gpus(count=16))
    assert reported(rig) == {"n-1": (8, 8, 0)}
    rig.tell_kubelets(kt.GpusLost("n-1", frozenset({0})))
    reads(rig, "n-1", gpus(count=16))
    assert reported(rig) == {"n-1": (7, 7, 1)}


def test_gpus_that_are_gone_from_the_bus_count_as_unhealthy() -> None:
    rig = small()
    reads(rig, "n-1", gpus(count=5))
    assert reported(rig) == {"n-1": (5, 5, 3)}


def test_what_runs_on_a_gpu_that_falls_sick_runs_on() -> None:
    rig = small()
    token = rig.federation.place(pods=1, gpus=8)
    rig.run(token)
    reads(rig, "n-1", gpus(*range(8)))
    rig.advance(60.0)
    assert reported(rig) == {"n-1": (0, 0, 8)}
    assert (len(rig.live(token)), rig.federation.heard(token)) == (1, ["Bound", "Running"])


def test_an_ask_that_says_nothing_of_gpus_changes_nothing() -> None:
    rig = small()
    reads(rig, "n-1", gpus(3))
    reads(rig, "n-1", None)
    assert reported(rig) == {"n-1": (7, 7, 1)}


def test_a_reading_ceases_to_count_so_long_after_the_guard_told_it_last() -> None:
    rig = small()
    reads(rig, "n-1", gpus(3))
    rig.advance(READINGS_COUNT_FOR_S - 100.0)
    reads(rig, "n-1", gpus(3))
    rig.advance(READINGS_COUNT_FOR_S - 3.0)
    assert reported(rig) == {"n-1": (7, 7, 1)}
    rig.advance(3.0)
    assert reported(rig) == {"n-1": (8, 8, 0)}


def test_where_guards_are_the_fence_a_node_gets_nothing_for_as_long_as_its_guard_is_silent() -> None:
    rig = small(fence_strength=FenceStrength.GUARD)
    reads(rig, "n-1", gpus(3))
    rig.advance(READINGS_COUNT_FOR_S + 2.0)
    assert reported(rig) == {"n-1": (8, 8, 0)}
    assert refused(rig, gpus=1) == ["Refused"]


def test_a_process_that_takes_over_long_after_begins_without_the_reading() -> None:
    rig = small()
    first = rig.processes[0]
    reads(rig, "n-1", gpus(3))
    rig.processes.remove(first)  # it is paused
    second = rig.start()
    rig.until(lambda: second.core.active)
    rig.advance(READINGS_COUNT_FOR_S)
    rig.processes.append(first)
    rig.processes.remove(second)
    rig.reports.clear()
    rig.until(lambda: first.core.active)
    rig.advance(10.0)
    assert reported(rig) == {"n-1": (8, 8, 0)}


def test_a_node_that_comes_again_begins_without_a_reading() -> None:
    rig = Rig().ready()
    reads(rig, "n-1", gpus(3))
    gone = rig.api.store.get("nodes", ("", "n-1"))
    assert gone is not None
    assert rig.request("DELETE", "/api/v1/nodes/n-1") == 200
    rig.advance(2.0)
    again = {key: value for key, value in gone["metadata"].items() if key in {"name", "labels"}}
    rig.request("POST", "/api/v1/nodes", {**gone, "metadata": again})
    rig.advance(2.0)
    assert reported(rig)["n-1"] == (8, 8, 0)


def test_readings_of_unknown_nodes_change_nothing() -> None:
    rig = small()
    reads(rig, "ghost", gpus(0))
    assert reported(rig) == {"n-1": (8, 8, 0)}


# --- what the log is told ---------------------------------------------------------------------------------------------


def notes(rig: Rig, event: str) -> list[dict[str, str]]:
    return [dict(note.fields) for note in rig.notes if note.event == event]


def test_news_of_a_nodes_gpus_are_told_once() -> None:
    rig = small()
    for told in (gpus(3), gpus(3)):
        reads(rig, "n-1", told)
    assert notes(rig, "gpus.read") == [{"node": "n-1", "healthy": "7", "faults": "GPU-3: xid-79"}]
    rig.advance(10.0)
    reads(rig, "n-1", gpus())
    assert notes(rig, "gpus.read")[1:] == [{"node": "n-1", "healthy": "8", "faults": ""}]


def test_who_speaks_as_a_guard_cannot_fill_the_log() -> None:
    rig = small()
    for _ in range(100):
        reads(rig, "n-1", gpus(3))
        reads(rig, "n-1", gpus())
    assert len(notes(rig, "gpus.read")) <= 400 / 10 + 1


def test_where_labels_and_driver_tell_of_different_gpus_the_log_says_so_and_nothing_changes() -> None:
    rig = Rig(node("n-1", **{"nvidia.com/gpu.product": "NVIDIA-H100", "nvidia.com/gpu.memory": "81559"})).ready()
    reads(rig, "n-1", gpus(product="NVIDIA H200", memory_mib=143_771))
    want = {"node": "n-1", "labels": "NVIDIA-H100 of 81559 MiB", "driver": "NVIDIA H200 of 143771 MiB"}
    assert notes(rig, "gpus.labels-differ") == [want]
    assert reported(rig) == {"n-1": (8, 8, 0)}
    assert {report.rows.product for report in rig.reports if report.rows.name} == {("NVIDIA-H100",)}


def test_labels_that_say_the_same_in_their_own_way_do_not_differ() -> None:
    for product, memory in (
        ("NVIDIA-H200", "143771"),
        ("NVIDIA-H200-SHARED", "143771"),
        ("NVIDIA-H200-MIG-1g.18gb", "16384"),
        ("NVIDIA-H200", ""),
        ("NVIDIA-H200", "143000"),
    ):
        rig = Rig(node("n-1", **{"nvidia.com/gpu.product": product, "nvidia.com/gpu.memory": memory})).ready()
        reads(rig, "n-1", gpus(product="NVIDIA H200", memory_mib=143_771))
        assert notes(rig, "gpus.labels-differ") == [], product
