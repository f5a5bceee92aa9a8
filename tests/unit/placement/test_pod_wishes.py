"""What a pod template requires and nobody would give it is refused by name; what it only prefers is taken."""

from __future__ import annotations

from typing import Any

import pytest

from placement.model import PodGroup, Role
from placement.pod_wishes import NotHonouredError, check_honoured
from placement.requests import TemplateError

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
TERM = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "train"}}}
SPREAD = {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone"}


def asking(kind: str, resource: str) -> dict[str, Any]:
    return {"containers": [{"name": "main", "resources": {kind: {resource: 1}}}]}


def group(*specs: dict[str, Any]) -> PodGroup:
    """A role per pod spec, each with a container unless the spec says which."""
    main = {"containers": [{"name": "main"}]}
    roles = (Role(name=f"r{n}", template={"spec": main | one}) for n, one in enumerate(specs))
    return PodGroup(name="g", roles=tuple(roles))


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"affinity": {"podAffinity": {REQUIRED: [TERM]}}}, f"affinity.podAffinity.{REQUIRED}"),
        ({"affinity": {"podAntiAffinity": {REQUIRED: [TERM]}}}, f"affinity.podAntiAffinity.{REQUIRED}"),
        (
            {"topologySpreadConstraints": [SPREAD | {"whenUnsatisfiable": "DoNotSchedule"}]},
            "topologySpreadConstraints[0].whenUnsatisfiable",
        ),
        ({"topologySpreadConstraints": [SPREAD]}, "topologySpreadConstraints[0].whenUnsatisfiable"),
        (
            {
                "topologySpreadConstraints": [
                    SPREAD | {"whenUnsatisfiable": "ScheduleAnyway"},
                    SPREAD | {"whenUnsatisfiable": "DoNotSchedule"},
                ]
            },
            "topologySpreadConstraints[1].whenUnsatisfiable",
        ),
        ({"nodeName": "node-7"}, "nodeName"),
        (asking("limits", "nvidia.com/gpu.shared"), "containers[0].resources.limits.nvidia.com/gpu.shared"),
        (asking("requests", "amd.com/gpu"), "containers[0].resources.requests.amd.com/gpu"),
        ({"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]}, "resourceClaims"),
        ({"schedulingGates": [{"name": "example.com/ready"}]}, "schedulingGates"),
    ],
)
def test_what_is_required_and_not_looked_at_is_refused_at_its_field(spec: dict[str, Any], field: str) -> None:
    with pytest.raises(NotHonouredError) as caught:
        check_honoured(group({}, spec))
    assert caught.value.field == f"roles[1].template.spec.{field}"


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"affinity": None, "topologySpreadConstraints": None, "nodeName": "", "resourceClaims": []},
        {"affinity": {"podAffinity": {PREFERRED: [{"weight": 1, "podAffinityTerm": TERM}], REQUIRED: []}}},
        asking("limits", "rdma/hca"),
        {"affinity": {"podAntiAffinity": {PREFERRED: [{"weight": 1, "podAffinityTerm": TERM}]}}},
        {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": []}]}}}},
        {"topologySpreadConstraints": [SPREAD | {"whenUnsatisfiable": "ScheduleAnyway"}]},
    ],
)
def test_what_is_only_preferred_or_is_looked_at_is_taken(spec: dict[str, Any]) -> None:
    check_honoured(group(spec))


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ({"affinity": ["x"]}, "affinity: must be a mapping"),
        ({"affinity": {"podAffinity": [TERM]}}, "affinity.podAffinity: must be a mapping"),
        ({"topologySpreadConstraints": SPREAD}, "topologySpreadConstraints: must be a list"),
        ({"topologySpreadConstraints": ["zone"]}, "topologySpreadConstraints[0]: must be a mapping"),
    ],
)
def test_another_form_than_kubernetes_is_a_bad_template(spec: dict[str, Any], error: str) -> None:
    with pytest.raises(TemplateError) as caught:
        check_honoured(group(spec))
    assert not isinstance(caught.value, NotHonouredError)
    assert str(caught.value) == f"roles[0].template.spec.{error}"


@pytest.mark.parametrize(
    ("spec", "field", "why"),
    [
        ({"containers": []}, "containers", "a pod has at least one container"),
        ({"containers": None}, "containers", "a pod has at least one container"),
        ({"containers": [{}]}, "containers[0].name", "None is no name of a container"),
        ({"containers": [{"name": 5}]}, "containers[0].name", "5 is no name of a container"),
        ({"containers": [{"name": "Main"}]}, "containers[0].name", "'Main' is no name of a container"),
        ({"containers": [{"name": "a" * 64}]}, "containers[0].name", "is no name of a container"),
        ({"containers": [{"name": "a"}, {"name": "a"}]}, "containers[1].name", "two containers are called a"),
        ({"initContainers": [{"name": "main"}]}, "initContainers[0].name", "two containers are called main"),
        ({"restartPolicy": "never"}, "restartPolicy", "'never' is none of Always, OnFailure, Never"),
        ({"restartPolicy": ["Never"]}, "restartPolicy", "['Never'] is none of Always, OnFailure, Never"),
    ],
)
def test_a_pod_that_every_api_server_refuses_is_a_bad_template(spec: dict[str, Any], field: str, why: str) -> None:
    with pytest.raises(TemplateError) as caught:
        check_honoured(group({}, spec))
    assert caught.value.field == f"roles[1].template.spec.{field}"
    assert why in caught.value.why


def test_names_of_containers_may_have_63_characters_and_a_sidecar_one_of_its_own() -> None:
    check_honoured(group({"containers": [{"name": "a" * 63}], "initContainers": [{"name": "side"}]}))
