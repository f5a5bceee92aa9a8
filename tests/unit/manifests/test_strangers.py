"""Whatever a stranger sends is taken or refused with a reason; it never surprises."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from federation.manifests import bundles, dialects, upstream
from federation.manifests.foreign import MEMBER_KINDS
from federation.manifests.strict import ManifestError, check_document, read_yaml
from placement.model import PodGroup
from placement.requests import TemplateError, gang_request

KEYS = st.sampled_from(
    [
        *("apiVersion", "kind", "metadata", "spec", "status", "name", "namespace", "labels", "annotations", "roles"),
        *("template", "count", "min_count", "gpu", "whole", "containers", "resources", "limits", "requests", "cpu"),
        *("nvidia.com/gpu", "memory", "parallelism", "completions", "suspend", "muster.io/queue", "nodeSelector"),
        *(
            "minMember",
            "schedulingPolicy",
            "gang",
            "minCount",
            "schedulingGroup",
            "podGroupName",
            "podGroups",
            "policy",
        ),
        *("replicatedJobs", "tasks", "replicas", "minTaskMember", "kueue.x-k8s.io/queue-name", "pod-group-name"),
        *("scheduling.x-k8s.io/pod-group", "scheduling.k8s.io/group-name", "workloadRef", "disruptionMode"),
        *("muster.io/clusters", "muster.io/priority", "queue", "weight", "gpu_quota", "terminationGracePeriodSeconds"),
    ]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 20_000),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "a", "A b", "5", "1Gi", "1e400", "{", "[]", "yes", "\x00", "0.5"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)
MAPPINGS = st.dictionaries(KEYS, VALUES, max_size=5)
KINDS = st.sampled_from(sorted(dialects.DIALECTS))
GANGS = st.sampled_from(sorted(bundles.DIALECT_OF) + sorted(upstream.WORKLOADS))
MEMBERS = st.sampled_from(sorted(MEMBER_KINDS))


def meet(document: Any) -> None:
    """Read it as the server does: taken, or refused in one of the three ways that people are told about."""
    try:
        read = dialects.read(check_document(document))
        if isinstance(read, PodGroup):
            gang_request(read)
    except (ManifestError, ValidationError, TemplateError):
        return


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(KINDS, VALUES, VALUES)
def test_any_metadata_and_spec_of_a_known_kind(kind: tuple[str, str], metadata: Any, spec: Any) -> None:
    meet({"apiVersion": kind[0], "kind": kind[1], "metadata": metadata, "spec": spec})


@pytest.mark.long
@settings(max_examples=100, deadline=None)
@given(VALUES, MAPPINGS, VALUES)
def test_any_job_that_looks_like_one(annotations: Any, spec: Any, pod: Any) -> None:
    template = {"spec": {"containers": pod}, "metadata": annotations}
    metadata = {"name": "a", "annotations": annotations, "labels": annotations}
    meet(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": metadata,
            "spec": {**spec, "parallelism": 1, "completions": 1, "template": template},
        }
    )


@pytest.mark.long
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(GANGS, MEMBERS, VALUES, VALUES, VALUES)
def test_any_group_of_others_with_anything_beside_it(
    gang: tuple[str, str], member: tuple[str, str], metadata: Any, spec: Any, pod: Any
) -> None:
    group = {"apiVersion": gang[0], "kind": gang[1], "metadata": metadata, "spec": spec}
    beside = {"apiVersion": member[0], "kind": member[1], "metadata": metadata, "spec": pod, "template": pod}
    meet({"apiVersion": "v1", "kind": "List", "items": [group, beside]})
    meet({"apiVersion": "v1", "kind": "List", "items": [{**group, "metadata": {"name": "a"}}, beside]})


@settings(max_examples=100, deadline=None)
@given(VALUES, VALUES)
def test_any_pod_template(limits: Any, pod: Any) -> None:
    container = {"name": "a", "resources": {"limits": limits, "requests": limits}}
    meet({"name": "a", "roles": [{"template": {"spec": {"containers": [container]}}}]})
    meet({"name": "a", "roles": [{"template": {"spec": pod}}]})


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="a:- \n{}[]&*!#|>\"'%@`,?\t", max_size=40))
def test_any_text_as_yaml(text: str) -> None:
    try:
        read_yaml(text)
    except ManifestError:
        return
