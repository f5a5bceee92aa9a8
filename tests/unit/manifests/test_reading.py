"""What accepted manifests mean: scalars as in JSON, our own kinds, and batch/v1 Jobs."""

import math
from pathlib import Path
from typing import Any

import pytest

from federation.manifests import dialects
from federation.manifests.strict import ManifestError, check_document, read_json, read_yaml
from placement.model import DisconnectPolicy, PodGroup, Queue, Topology

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("off", "off"),
        ("Yes", "Yes"),
        ("True", "True"),
        ("true", True),
        ("017", "017"),
        ("0x1f", "0x1f"),
        ("12:30:45", "12:30:45"),
        ("1_000", "1_000"),
        ("2026-11-25", "2026-11-25"),
        (".inf", ".inf"),
        ("-7", -7),
        ("1e3", 1000.0),
        ("0.5", 0.5),
        ("null", None),
        ("~", None),
        ("", None),
        ('"5"', "5"),
    ],
)
def test_scalars_mean_what_they_mean_in_json(text: str, value: object) -> None:
    assert read_yaml(f"a: {text}") == [{"a": value}]


@pytest.mark.parametrize("body", [b"NaN", b"Infinity", b'{"a": -Infinity}'])
def test_json_without_finite_numbers_is_refused(body: bytes) -> None:
    with pytest.raises(ManifestError) as caught:
        read_json(body)
    assert caught.value.reason == "NotFinite"


@pytest.mark.parametrize(
    ("body", "reason", "field"),
    [
        (b"{", "BadJson", ""),
        (b"\xff", "BadJson", ""),
        (b'{"a": 1, "a": 2}', "DuplicateKey", "a"),
        (b"1e999", "NotFinite", ""),
    ],
)
def test_json_of_strangers_is_read_strictly(body: bytes, reason: str, field: str) -> None:
    with pytest.raises(ManifestError) as caught:
        read_json(body)
    assert (caught.value.reason, caught.value.field) == (reason, field)


def test_values_that_json_cannot_hold_are_refused_wherever_they_come_from() -> None:
    with pytest.raises(ManifestError) as caught:
        check_document({"a": [math.nan]})
    assert caught.value.reason == "NotFinite"


def test_our_own_group_and_the_bare_model_mean_the_same() -> None:
    bare: dict[str, Any] = {"name": "a", "namespace": "ml", "queue": "q", "roles": [{"template": {}}]}
    written = {
        "apiVersion": "muster.io/v1",
        "kind": "PodGroup",
        "metadata": {"name": "a", "namespace": "ml"},
        "spec": {"queue": "q", "roles": [{"template": {}}]},
    }
    assert dialects.read(written) == dialects.read(bare)


def test_status_is_ignored_so_that_what_was_read_can_be_submitted() -> None:
    written = {
        "apiVersion": "muster.io/v1",
        "kind": "PodGroup",
        "metadata": {"name": "a"},
        "spec": {"roles": [{"template": {}}]},
        "status": {"phase": "Running"},
    }
    assert isinstance(dialects.read(written), PodGroup)


def job(metadata: dict[str, Any], spec: dict[str, Any]) -> PodGroup:
    return dialects.read_group({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec})


TEMPLATE: dict[str, Any] = {"spec": {"terminationGracePeriodSeconds": 5, "containers": []}}


def test_a_job_is_a_gang_of_its_parallelism() -> None:
    group = job({"name": "a"}, {"parallelism": 3, "completions": 3, "template": TEMPLATE})
    assert (group.name, group.namespace, group.pods, group.workload, group.grace_s) == ("a", "default", 3, "job", 5)
    assert group.roles[0].template == TEMPLATE


def test_a_job_goes_to_the_cluster_as_submitted_without_its_template() -> None:
    group = job({"name": "a"}, {"parallelism": 1, "backoffLimit": 0, "template": TEMPLATE})
    assert group.workload_object == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "a"},
        "spec": {"parallelism": 1, "backoffLimit": 0},
    }


def test_a_jobs_wishes_are_annotations() -> None:
    annotations = {
        "muster.io/queue": "research",
        "muster.io/priority": "5",
        "muster.io/min-count": "1",
        "muster.io/products": "A100-80,H100-80",
        "muster.io/topology-required": "rack",
        "muster.io/disconnect-policy": "HoldInPlace",
        "muster.io/clusters": '{"affinity": {"region": ["eu-1"]}}',
        "other.io/note": "kept",
    }
    group = job({"name": "a", "annotations": annotations}, {"parallelism": 2, "template": TEMPLATE})
    assert (group.queue, group.priority, group.min_count) == ("research", 5, 1)
    assert group.roles[0].products == ("A100-80", "H100-80")
    assert group.topology == Topology(required="rack")
    assert group.disconnect_policy is DisconnectPolicy.HOLD_IN_PLACE
    assert group.clusters.affinity == {"region": ("eu-1",)}


def test_a_jobs_own_labels_are_the_groups_and_our_wishes_are_not() -> None:
    labels = {"team": "vision", "muster.io/queue": "research"}
    group = job({"name": "a", "labels": labels}, {"template": TEMPLATE})
    assert (group.labels, group.queue) == ({"team": "vision"}, "research")


def test_a_suspended_job_is_a_suspended_group() -> None:
    assert job({"name": "a"}, {"suspend": True, "template": TEMPLATE}).suspend


def test_a_queue_may_be_bare_of_everything_but_its_name() -> None:
    read = dialects.read({"apiVersion": "muster.io/v1", "kind": "Queue", "metadata": {"name": "a"}})
    assert read == Queue(name="a")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("gang.yaml", PodGroup), ("job.yaml", PodGroup), ("elastic.yaml", PodGroup), ("queue.yaml", Queue)],
)
def test_the_examples_are_acceptable(name: str, kind: type) -> None:
    documents = read_yaml((EXAMPLES / name).read_text())
    assert [isinstance(dialects.read(document), kind) for document in documents] == [True]
