"""The small languages of simkube: node specifications, selectors, patches, quantities, run and write-ahead logs."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from cluster_agents.simkube import wal
from cluster_agents.simkube.apiserver import ApiRequest, ApiServer
from cluster_agents.simkube.apiserver.patches import apply_patch
from cluster_agents.simkube.apiserver.selectors import selector_of
from cluster_agents.simkube.apiserver.types import JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, RefusedError
from cluster_agents.simkube.kubelet.asks import Ask, ask_of, drawn
from cluster_agents.simkube.nodespec import NodeSpecError, node_shapes
from cluster_agents.simkube.runlog import (
    RunLogBrokenError,
    RunLogEntry,
    decode_lines,
    device_conflicts,
    encode_line,
    live_at,
    overlaps_between_clusters,
)
from tests.unit.simkube.mini import PODS, pod

# --- node specifications ---------------------------------------------------------------------------------------------


def test_a_node_specification_gives_names_devices_cliques_racks_and_blocks() -> None:
    shapes = node_shapes("eu", "6xA100-80:8,clique=4,rack=2,block=2,cpu=64,memory=512,zone=eu-1b+1xcpu:0")
    assert [s.name for s in shapes] == [f"eu-000{i}" for i in range(1, 8)]
    assert (shapes[0].gpus, shapes[0].cpu_milli, shapes[0].memory_mib) == (8, 64_000, 524_288)
    assert [s.labels.get("nvidia.com/gpu.clique") for s in shapes] == ["eu.0"] * 4 + ["eu.1"] * 2 + [None]
    assert [s.labels["muster.io/rack"] for s in shapes[:6]] == [f"eu-rack-{i}" for i in (0, 0, 1, 1, 2, 2)]
    assert [s.labels["muster.io/block"] for s in shapes[:6]] == [f"eu-block-{i}" for i in (0, 0, 0, 0, 1, 1)]
    assert shapes[5].labels["nvidia.com/gpu.product"] == "A100-80"
    assert shapes[5].labels["nvidia.com/gpu.memory"] == "81920"
    assert shapes[5].labels["topology.kubernetes.io/zone"] == "eu-1b"
    assert "nvidia.com/gpu.product" not in shapes[6].labels


def test_a_node_whose_gpus_are_shared_advertises_replicas_and_says_so() -> None:
    (shape,) = node_shapes("eu", "1xA100-80:2,shared=4")
    assert shape.gpus == 8
    told = {key.removeprefix("nvidia.com/gpu."): value for key, value in shape.labels.items() if "nvidia" in key}
    assert told == {
        "product": "A100-80-SHARED",
        "count": "2",
        "memory": "81920",
        "sharing-strategy": "time-slicing",
        "replicas": "4",
    }


def test_gpus_may_be_cut_into_instances_and_are_no_whole_ones_then() -> None:
    (shape,) = node_shapes("eu", "1xA100-80:4,mig=3g.40gb/2g.20gb/1g.10gb/1g.10gb")
    assert shape.mig == {"nvidia.com/mig-3g.40gb": 4, "nvidia.com/mig-2g.20gb": 4, "nvidia.com/mig-1g.10gb": 8}
    assert shape.gpus == 0
    assert shape.labels["nvidia.com/mig.strategy"] == "mixed"
    assert shape.labels["nvidia.com/gpu.product"] == "A100-80"
    (whole,) = node_shapes("eu", "1xA100-80:4")
    assert (whole.mig, whole.gpus) == ({}, 4)


def test_instances_may_go_by_the_name_of_whole_gpus() -> None:
    (shape,) = node_shapes("eu", "1xA100-80:4,mig=3g.40gb/3g.40gb,strategy=single")
    assert (shape.gpus, shape.mig) == (8, {})
    told = [shape.labels[f"nvidia.com/{key}"] for key in ("mig.strategy", "gpu.product", "gpu.count")]
    assert told == ["single", "A100-80-MIG-3g.40gb", "8"]


def test_a_cluster_has_at_most_five_thousand_nodes() -> None:
    assert len(node_shapes("c", "4999xcpu:0+1xcpu:0")) == 5_000
    with pytest.raises(NodeSpecError, match="more than 5000 nodes"):
        node_shapes("c", "4999xcpu:0+2xcpu:0")


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("64 A100", "want COUNTxPRODUCT:GPUS"),
        ("1xA100:17", "17 GPUs in a node, at most 16"),
        ("1xA100:8,colour=red", "unknown option colour"),
        ("1xL4-24:8,shared=49", "shared=49: at most 48 pods share a GPU"),
        ("1xL4-24:8,shared=0", "shared=0 is not a number from 1 to 999999"),
        ("1xA30:8,mig=1g.6gb,shared=2", "shared=2: GPUs that are cut by mig stay unshared here"),
        ("1xL4-24:8,mig=1g.6gb", "mig=1g.6gb: of L4-24 it is not known how it is cut"),
        ("1xA30:2,mig=1g.5gb", "one A30 cannot be cut so; its profiles are 1g.6gb, 2g.12gb, 4g.24gb"),
        ("1xA100-80:8,mig=3g.40gb/3g.40gb/1g.10gb", "one A100-80 cannot be cut so"),
        ("1xA100-80:1,mig=3g.40gb/1g.10gb,strategy=single", "all instances are of one profile, not 1g.10gb, 3g.40gb"),
        ("1xA100-80:1,mig=3g.40gb,strategy=none", "strategy=none: say mixed or single"),
        ("1xA100-80:1,strategy=single", "strategy=single: say mixed or single, of GPUs that are cut by mig"),
        ("1xA100:8,clique=0", "clique=0 is not a number from 1 to 999999"),
        ("1xA100:8,cpu=1000000", "cpu=1000000 is not a number from 1 to 999999"),
        ("1xA100:8,clique=²", "clique=² is not a number"),
        (f"{'9' * 5000}xA100:8", "want COUNTxPRODUCT:GPUS"),
    ],
)
def test_a_specification_that_cannot_be_read_says_what_is_wrong(spec: str, why: str) -> None:
    with pytest.raises(NodeSpecError, match=why):
        node_shapes("c", spec)


# --- selectors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "labels", "matches"),
    [
        ("a=1", {"a": "1"}, True),
        ("a==1,b!=2", {"a": "1"}, True),
        ("a==1,b!=2", {"a": "1", "b": "2"}, False),
        ("a in (1,2)", {"a": "2"}, True),
        ("a notin (1, 2)", {"a": "2"}, False),
        ("a notin (1, 2)", {}, True),
        ("a", {"a": ""}, True),
        ("!a", {"a": ""}, False),
        ("x.io/a,!b , c=d", {"x.io/a": "1", "c": "d"}, True),
    ],
)
def test_label_selectors(text: str, labels: Mapping[str, str], matches: bool) -> None:
    assert selector_of("pods", text, "").matches({"metadata": {"labels": labels}}) is matches


@pytest.mark.parametrize("text", ["a in 1", "=1", "a=1,,b", "a b"])
def test_a_selector_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(RefusedError) as refused:
        selector_of("pods", text, "")
    assert refused.value.code == 400


# --- patches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "patch", "want"),
    [
        pytest.param(MERGE_PATCH, {"a": {"x": None, "z": 3}}, {"a": {"y": 2, "z": 3}, "l": [1, 2]}, id="merge"),
        pytest.param(MERGE_PATCH, {"l": [3]}, {"a": {"x": 1, "y": 2}, "l": [3]}, id="merge replaces lists"),
        pytest.param(
            JSON_PATCH,
            [{"op": "add", "path": "/l/1", "value": 9}, {"op": "remove", "path": "/a/x"}],
            {"a": {"y": 2}, "l": [1, 9, 2]},
            id="JSON patch adds and removes",
        ),
        pytest.param(
            JSON_PATCH,
            [{"op": "test", "path": "/a/x", "value": 1}, {"op": "move", "from": "/a/x", "path": "/l/-"}],
            {"a": {"y": 2}, "l": [1, 2, 1]},
            id="JSON patch tests and moves",
        ),
    ],
)
def test_patches_make_a_new_object_and_leave_the_old_one(dialect: str, patch: Any, want: object) -> None:
    old = {"a": {"x": 1, "y": 2}, "l": [1, 2]}
    assert apply_patch(old, patch, dialect) == want
    assert old == {"a": {"x": 1, "y": 2}, "l": [1, 2]}


def test_a_strategic_patch_merges_conditions_by_type_and_unites_finalizers() -> None:
    old = {"metadata": {"finalizers": ["a"]}, "conditions": [{"type": "Ready", "status": "False", "reason": "r"}]}
    patch = {
        "metadata": {"finalizers": ["b", "a"]},
        "conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}],
    }
    assert apply_patch(old, patch, STRATEGIC_PATCH) == {
        "metadata": {"finalizers": ["a", "b"]},
        "conditions": [
            {"type": "Ready", "status": "True", "reason": "r"},
            {"type": "Other", "status": "False"},
        ],
    }
    without = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}
    assert apply_patch(old, without, STRATEGIC_PATCH)["metadata"] == {}


# --- what a pod asks -------------------------------------------------------------------------------------------------


def _container(cpu: str, memory: str, **more: Any) -> dict[str, Any]:
    return {"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}, **more}


def test_a_pods_ask_is_the_sum_of_its_containers_or_its_largest_init_step() -> None:
    spec = {
        "initContainers": [
            _container("100m", "64Mi", restartPolicy="Always"),
            _container("3", "1Gi"),
        ],
        "containers": [_container("1", "1.5Gi"), _container("250m", "1")],
        "overhead": {"cpu": "50m"},
    }
    assert ask_of(spec) == Ask(cpu_milli=3_150, memory_mib=1_601, gpus=0)


def test_draws_depend_on_the_seed_and_the_subject_alone() -> None:
    assert drawn(1, "a", 0.0, 1.0) == drawn(1, "a", 0.0, 1.0)
    assert len({drawn(seed, what, 0.0, 1.0) for seed in (1, 2) for what in ("a", "b")}) == 4
    assert 5.0 <= drawn(7, "x", 5.0, 6.0) < 6.0


# --- run logs --------------------------------------------------------------------------------------------------------


def entry(cluster: str, uid: str, event: str, at_s: float, gpus: tuple[int, ...] = ()) -> RunLogEntry:
    return RunLogEntry(
        cluster=cluster,
        node="n",
        namespace="default",
        pod=uid,
        uid=uid,
        group="g",
        token="L.1",
        event="started" if event == "started" else "ended",
        at_s=at_s,
        gpus=gpus,
    )


def test_live_are_those_started_and_not_yet_ended() -> None:
    log = [entry("a", "p", "started", 1.0), entry("a", "q", "started", 2.0), entry("a", "p", "ended", 3.0)]
    assert [run.started.uid for run in live_at(log, 0.9)] == []
    assert [run.started.uid for run in live_at(log, 2.0)] == ["p", "q"]
    assert [run.started.uid for run in live_at(log, 3.0)] == ["q"]


def test_one_group_at_one_moment_in_two_clusters_is_an_overlap() -> None:
    log = [entry("a", "p", "started", 1.0), entry("b", "q", "started", 2.0), entry("a", "p", "ended", 3.0)]
    assert [(o.first.started.cluster, o.second.started.cluster) for o in overlaps_between_clusters(log)] == [("a", "b")]


def test_one_after_the_other_or_in_one_cluster_is_no_overlap() -> None:
    moved = [entry("a", "p", "started", 1.0), entry("a", "p", "ended", 3.0), entry("b", "q", "started", 3.0)]
    assert overlaps_between_clusters(moved) == []
    together = [entry("a", "p", "started", 1.0), entry("a", "q", "started", 2.0)]
    assert overlaps_between_clusters(together) == []


def test_a_gpu_held_twice_is_found() -> None:
    log = [entry("a", "p", "started", 1.0, (0, 1)), entry("a", "q", "started", 2.0, (1, 2))]
    assert [(c.first.started.uid, c.second.started.uid) for c in device_conflicts(log)] == [("p", "q")]
    assert device_conflicts([log[0], entry("a", "q", "started", 2.0, (2,))]) == []
    cut = [msgspec.structs.replace(one, gpus=(), instances=("nvidia.com/mig-1g.10gb/0",)) for one in log]
    assert [(c.first.started.uid, c.second.started.uid) for c in device_conflicts(cut)] == [("p", "q")]


def test_a_log_that_no_kubelet_writes_is_refused() -> None:
    with pytest.raises(RunLogBrokenError):
        live_at([entry("a", "p", "ended", 1.0)], 1.0)
    with pytest.raises(RunLogBrokenError):
        live_at([entry("a", "p", "started", 1.0), entry("a", "p", "started", 2.0)], 2.0)


def test_run_log_lines_are_read_back_and_a_torn_last_line_is_left_out() -> None:
    log = [entry("a", "p", "started", 1.5, (0, 1)), entry("a", "p", "ended", 2.5)]
    data = b"".join(encode_line(e) for e in log)
    assert decode_lines(data) == log
    assert decode_lines(data[:-5]) == log[:1]


# --- the write-ahead log ---------------------------------------------------------------------------------------------


def test_an_api_server_is_rebuilt_from_its_log_and_a_torn_last_line_was_never_acknowledged() -> None:
    api = ApiServer("c-1")
    lines = list(wal.encode_backup(api.backup()))
    api.on_change = lambda change: lines.append(wal.encode_change(change))
    for name in ("a", "b"):
        api.handle(ApiRequest("POST", PODS, {}, pod(name)), 1.0)
    api.handle(ApiRequest("DELETE", f"{PODS}/a"), 2.0)
    assert wal.decode(lines) == api.backup()
    torn = [*lines[:-1], lines[-1][:-3]]
    assert sorted(name for _, name in wal.decode(torn).tables["pods"]) == ["a", "b"]


def test_a_line_spoilt_in_the_middle_of_the_log_is_an_error_not_a_loss() -> None:
    lines = [*wal.encode_backup(ApiServer("c-1").backup())]
    lines[1] = b"{spoilt\n"
    with pytest.raises(wal.WalBrokenError) as broken:
        wal.decode(lines)
    assert broken.value.line == 2
