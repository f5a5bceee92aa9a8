"""What other schedulers' manifests mean here: the examples that ship, and what cannot be honoured."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from federation.manifests import dialects
from federation.manifests.bundles import bundled
from federation.manifests.faults import BAD_MANIFEST, fault_of
from federation.manifests.strict import read_yaml
from placement.model import DisruptionMode, PodGroup, RoleTopology, Topology

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "dialects"
SCHEDULERS_MARKS = ("scheduling", "workloadRef", "schedulerName", "volcano.sh", "pod-group", "kueue", "kai.scheduler")


class Role(NamedTuple):
    name: str
    count: int
    min_count: int | None = None


def groups(text: str) -> list[PodGroup]:
    found = [dialects.read(document) for _, document in bundled(read_yaml(text))]
    assert all(isinstance(one, PodGroup) for one in found)
    return [one for one in found if isinstance(one, PodGroup)]


def example(name: str) -> PodGroup:
    (group,) = groups((EXAMPLES / f"{name}.yaml").read_text())
    return group


EXPECTED: dict[str, tuple[str, int | None, list[Role], dict[str, Any]]] = {
    "upstream-v1alpha1": ("pair-workers", 2, [Role("worker", 2)], {"disruption_mode": DisruptionMode.SINGLE}),
    "upstream-v1alpha2": ("llama-workers", 2, [Role("worker", 2)], {"disruption_mode": DisruptionMode.ALL}),
    "upstream-v1beta1": (
        "tune",
        2,
        [Role("worker", 2)],
        {"topology": Topology(required="nvidia.com/gpu.clique"), "priority": 5, "workload": "job"},
    ),
    "upstream-minmember": ("sweep", 3, [Role("worker", 3)], {"workload": "pods"}),
    "scheduler-plugins": ("bert", 2, [Role("worker", 2)], {"workload": "job"}),
    "volcano": ("gnn", 3, [Role("parameters", 1, 1), Role("worker", 2, 2)], {"queue": "default"}),
    "volcano-job": ("mpi", 3, [Role("launcher", 1), Role("worker", 2)], {"workload": "pods"}),
    "kai": ("vision", 2, [Role("worker", 2)], {"topology": Topology(preferred="nvidia.com/gpu.clique")}),
    "jobset": ("rl", None, [Role("learner", 1), Role("actor", 4)], {"workload": "pods"}),
    "kueue-job": (
        "embed",
        None,
        [Role("worker", 2)],
        {"suspend": False, "max_run_s": 3600, "topology": Topology(preferred="nvidia.com/gpu.clique")},
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_means_what_its_own_scheduler_would_make_of_it(name: str) -> None:
    group_name, min_count, roles, fields = EXPECTED[name]
    group = example(name)
    assert (group.name, group.min_count) == (group_name, min_count)
    assert [Role(role.name, role.count, role.min_count) for role in group.roles] == roles
    assert {key: getattr(group, key) for key in fields} == fields


def test_every_example_is_known_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.yaml")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_nothing_of_the_other_scheduler_reaches_the_member_cluster(name: str) -> None:
    group = example(name)
    left = str([role.template for role in group.roles]) + str(group.workload_object or "")
    assert [mark for mark in SCHEDULERS_MARKS if mark in left] == []


# --- what is refused -------------------------------------------------------------------------------------------------

POD = """
---
apiVersion: v1
kind: Pod
metadata: {name: NAME, annotations: {scheduling.k8s.io/group-name: a, pod-group-name: a}, labels: LABELS}
spec: {containers: [], SPEC}
"""


def pod(name: str = "a-0", *, spec: str = "schedulingGroup: {podGroupName: a}", labels: str = "{}") -> str:
    return POD.replace("NAME", name).replace("SPEC", spec).replace("LABELS", labels)


def podgroup(version: str, spec: str, *, kind: str = "PodGroup") -> str:
    return f"---\n{{apiVersion: {version}, kind: {kind}, metadata: {{name: a}}, spec: {{{spec}}}}}\n"


UPSTREAM = "scheduling.k8s.io/v1beta1"
GANG = "schedulingPolicy: {gang: {minCount: 1}}"
WORKLOAD = podgroup(UPSTREAM, "podGroupTemplates: [{name: w, schedulingPolicy: {basic: {}}}]", kind="Workload")
JOB = """
---
apiVersion: batch/v1
kind: Job
metadata: {name: a, LABELS}
spec:
  parallelism: 2
  template: {spec: {schedulingGroup: {podGroupName: a}, containers: []}}
"""


def job(labels: str = "") -> str:
    return JOB.replace("LABELS", labels)


def jobset(spec: str) -> str:
    return podgroup("jobset.x-k8s.io/v1alpha2", spec, kind="JobSet")


ONE = "replicatedJobs: [{name: w, template: {spec: {template: {spec: {containers: []}}}}}]"
VCJOB = "tasks: [{name: w, template: {spec: {containers: []}}}]"
KUEUE = "labels: {kueue.x-k8s.io/queue-name: q"

KUEUE_JOB = """
apiVersion: batch/v1
kind: Job
metadata: {name: a, labels: {kueue.x-k8s.io/queue-name: q}}
spec: {parallelism: 4, completions: 4, template: {metadata: {annotations: NOTES}, spec: {containers: []}}}
"""
KUEUE_SET = """
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata: {name: a, labels: {kueue.x-k8s.io/queue-name: q}}
spec:
  replicatedJobs:
  - {name: leader, template: {spec: {template: {spec: {containers: []}}}}}
  - name: worker
    template:
      spec: {parallelism: 4, completions: 4, template: {metadata: {annotations: NOTES}, spec: {containers: []}}}
"""
RACK = "kueue.x-k8s.io/podset-required-topology: muster.io/rack"
SLICES = "kueue.x-k8s.io/podset-slice-required-topology: kubernetes.io/hostname, kueue.x-k8s.io/podset-slice-size: '2'"


def test_slices_of_a_kueue_job_stand_inside_the_level_of_the_job() -> None:
    (group,) = groups(KUEUE_JOB.replace("NOTES", f"{{{RACK}, {SLICES}}}"))
    assert group.topology == Topology(required="muster.io/rack")
    assert group.roles[0].topology == RoleTopology(required="kubernetes.io/hostname", slice=2)
    assert group.roles[0].template["metadata"]["annotations"] == {}


@pytest.mark.parametrize(
    ("notes", "wanted"),
    [
        pytest.param(RACK, RoleTopology(required="muster.io/rack"), id="the whole role"),
        pytest.param(SLICES, RoleTopology(required="kubernetes.io/hostname", slice=2), id="slices"),
    ],
)
def test_levels_of_one_of_a_jobsets_templates_are_its_roles(notes: str, wanted: RoleTopology) -> None:
    (group,) = groups(KUEUE_SET.replace("NOTES", f"{{{notes}}}"))
    assert group.topology == Topology()
    assert [role.topology for role in group.roles] == [RoleTopology(), wanted]


REFUSED = [
    pytest.param(
        KUEUE_SET.replace("NOTES", f"{{{RACK}, {SLICES}}}"),
        "NotTaken",
        "spec.replicatedJobs[1].template.spec.template.metadata.annotations."
        "kueue.x-k8s.io/podset-slice-required-topology",
        id="levels and slices of one role of several",
    ),
    pytest.param(
        KUEUE_JOB.replace("NOTES", "{kueue.x-k8s.io/podset-slice-size: '2'}"),
        "MissingField",
        "spec.template.metadata.annotations.kueue.x-k8s.io/podset-slice-required-topology",
        id="slices of no level",
    ),
    pytest.param(
        KUEUE_JOB.replace("NOTES", f"{{{SLICES.replace(chr(39) + '2' + chr(39), 'two')}}}"),
        "BadValue",
        "spec.template.metadata.annotations.kueue.x-k8s.io/podset-slice-size",
        id="slices of a word",
    ),
    pytest.param(podgroup(UPSTREAM, GANG), "NoPods", "kind", id="a group without pods"),
    pytest.param(pod(), "NoGroup", "spec.schedulingGroup.podGroupName", id="pods without their group"),
    pytest.param(pod(spec="restartPolicy: Never").replace("group-name: a", "x: y"), "NoGroup", "kind", id="a bare pod"),
    pytest.param(WORKLOAD, "NoGroup", "kind", id="a workload alone"),
    pytest.param(podgroup(UPSTREAM, GANG) * 2 + pod(), "DuplicateKey", "metadata.name", id="the group twice"),
    pytest.param(podgroup(UPSTREAM, GANG) + job() + pod(), "NotTaken", "kind", id="a Job and pods"),
    pytest.param(podgroup(UPSTREAM, GANG) + job() * 2, "NotTaken", "kind", id="two Jobs"),
    pytest.param(podgroup(UPSTREAM, "") + pod(), "MissingField", "spec.schedulingPolicy.gang.minCount", id="no policy"),
    pytest.param(
        podgroup(UPSTREAM, "schedulingPolicy: {gang: {}}") + pod(),
        "MissingField",
        "spec.schedulingPolicy.gang.minCount",
        id="no minCount",
    ),
    pytest.param(
        podgroup(UPSTREAM, "schedulingPolicy: {gang: {minCount: 1}, basic: {}}") + pod(),
        "BadValue",
        "spec.schedulingPolicy",
        id="basic and gang",
    ),
    pytest.param(podgroup(UPSTREAM, f"{GANG}, minMember: 2") + pod(), "BadValue", "spec.minMember", id="alias differs"),
    pytest.param(podgroup(UPSTREAM, "minMember: 2") + pod(), "BadValue", "min_count", id="more wanted than there are"),
    pytest.param(podgroup(UPSTREAM, "minMember: 0") + pod(), "OutOfRange", "min_count", id="none wanted"),
    pytest.param(podgroup(UPSTREAM, 'minMember: "1"') + pod(), "BadType", "min_count", id="minMember is text"),
    pytest.param(podgroup(UPSTREAM, f"{GANG}, size: 2") + pod(), "UnknownField", "spec.size", id="unknown field"),
    pytest.param(
        podgroup(UPSTREAM, f"{GANG}, resourceClaims: [{{name: x}}]") + pod(),
        "NotTaken",
        "spec.resourceClaims",
        id="DRA",
    ),
    pytest.param(
        podgroup(UPSTREAM, f"{GANG}, disruptionMode: Some") + pod(),
        "BadValue",
        "spec.disruptionMode",
        id="no such mode",
    ),
    pytest.param(
        podgroup(UPSTREAM, f"{GANG}, disruptionMode: {{single: {{}}, all: {{}}}}") + pod(),
        "BadValue",
        "spec.disruptionMode",
        id="two modes",
    ),
    pytest.param(
        podgroup(UPSTREAM, f"{GANG}, schedulingConstraints: {{topology: [{{key: x}}, {{key: y}}]}}") + pod(),
        "OutOfRange",
        "spec.schedulingConstraints.topology",
        id="two levels",
    ),
    pytest.param(
        podgroup(UPSTREAM, f"{GANG}, priorityClassName: high") + pod(),
        "NotTaken",
        "spec.priorityClassName",
        id="a class",
    ),
    pytest.param(
        WORKLOAD + podgroup(UPSTREAM, "workloadRef: {workloadName: a, templateName: x}") + pod(),
        "BadValue",
        "spec.workloadRef",
        id="a template that the workload lacks",
    ),
    pytest.param(
        podgroup("scheduling.k8s.io/v1alpha1", "podGroups: []", kind="Workload"),
        "MissingField",
        "spec.podGroups",
        id="a workload without groups",
    ),
    pytest.param(
        podgroup("scheduling.k8s.io/v1alpha1", "podGroups: [{name: w, policy: {basic: {}}}]", kind="Workload")
        + pod(spec="workloadRef: {name: a, podGroup: w, podGroupReplicaKey: k}"),
        "NotTaken",
        "spec.workloadRef.podGroupReplicaKey",
        id="replicas of a group",
    ),
    pytest.param(
        podgroup("scheduling.volcano.sh/v1beta1", "minMember: 1, networkTopology: {mode: hard}") + pod(),
        "NotTaken",
        "spec.networkTopology",
        id="Volcano's tiers",
    ),
    pytest.param(
        podgroup("scheduling.run.ai/v2alpha2", "minMember: 1, subGroups: [{name: x}]") + pod(),
        "NotTaken",
        "spec.subGroups",
        id="KAI's subgroups",
    ),
    pytest.param(
        podgroup("scheduling.x-k8s.io/v1alpha1", "minMembers: 1") + pod(labels="{scheduling.x-k8s.io/pod-group: a}"),
        "UnknownField",
        "spec.minMembers",
        id="a misspelt minMember",
    ),
    pytest.param(
        podgroup("batch.volcano.sh/v1alpha1", f"{VCJOB}, plugins: {{ssh: []}}", kind="Job"),
        "NotTaken",
        "spec.plugins",
        id="Volcano's plugins",
    ),
    pytest.param(
        podgroup("batch.volcano.sh/v1alpha1", "minAvailable: 1", kind="Job"),
        "MissingField",
        "spec.tasks",
        id="no tasks",
    ),
    pytest.param(jobset("replicatedJobs: []"), "MissingField", "spec.replicatedJobs", id="a JobSet of nothing"),
    pytest.param(jobset(f"{ONE}, failurePolicy: {{maxRestarts: 3}}"), "NotTaken", "spec.failurePolicy", id="restarts"),
    pytest.param(
        jobset(ONE.replace("name: w,", "name: w, replicas: 0,")),
        "BadValue",
        "spec.replicatedJobs[0].replicas",
        id="no replicas",
    ),
    pytest.param(
        jobset(ONE.replace("{spec: {template", "{spec: {parallelism: 2, completions: 9, template")),
        "NotAGang",
        "spec.replicatedJobs[0].template.spec.completions",
        id="a JobSet's Job that is no gang",
    ),
    pytest.param(
        job(f"{KUEUE}, kueue.x-k8s.io/priority-class: high}}"),
        "NotTaken",
        "metadata.labels.kueue.x-k8s.io/priority-class",
        id="Kueue's class",
    ),
    pytest.param(
        job(f"{KUEUE}, kueue.x-k8s.io/max-exec-time-seconds: soon}}"),
        "BadValue",
        "metadata.labels.kueue.x-k8s.io/max-exec-time-seconds",
        id="Kueue's time is a word",
    ),
    pytest.param(
        job(f"{KUEUE}, kueue.x-k8s.io/elastic-job: x}}"),
        "NotTaken",
        "metadata.labels.kueue.x-k8s.io/elastic-job",
        id="Kueue's elasticity",
    ),
    pytest.param("{apiVersion: v1, kind: List, items: 3}", "BadType", "items", id="a List of a number"),
]


@pytest.mark.parametrize(("text", "reason", "field"), REFUSED)
def test_what_cannot_be_honoured_is_refused(text: str, reason: str, field: str) -> None:
    with pytest.raises(BAD_MANIFEST) as caught:
        groups(text)
    fault = fault_of(caught.value)  # type: ignore[arg-type]
    assert (fault.reason, fault.field) == (reason, field), fault.detail


@pytest.mark.parametrize(
    "text",
    [podgroup(UPSTREAM, GANG), podgroup("scheduling.volcano.sh/v1beta1", "minMember: 1"), WORKLOAD],
    ids=["upstream", "Volcano", "a Workload"],
)
def test_a_group_that_the_api_gets_without_its_pods_is_refused_with_the_way_out(text: str) -> None:
    with pytest.raises(BAD_MANIFEST, match="add") as caught:
        dialects.read(read_yaml(text)[0])
    assert fault_of(caught.value).reason in {"NoPods", "NoGroup"}  # type: ignore[arg-type]


def test_a_list_is_one_submission() -> None:
    document = {"apiVersion": "v1", "kind": "List", "items": read_yaml(podgroup(UPSTREAM, GANG) + pod())}
    group = dialects.read(document)
    assert isinstance(group, PodGroup)
    assert group.pods == 1
    twice = {**document, "items": [*document["items"], *read_yaml(job("labels: {}"))[:1]]}
    twice["items"][2]["spec"]["template"]["spec"].pop("schedulingGroup")
    with pytest.raises(BAD_MANIFEST, match="holds 2 submissions"):
        dialects.read(twice)


def test_several_groups_in_one_file_are_several_submissions_in_their_order() -> None:
    other = (
        (podgroup(UPSTREAM, GANG) + pod()).replace("name: a", "name: b").replace("podGroupName: a", "podGroupName: b")
    )
    own = "---\n{name: c, roles: [{template: {}}]}\n"
    assert [group.name for group in groups(own + podgroup(UPSTREAM, GANG) + other + pod())] == ["c", "a", "b"]


def test_pods_that_differ_are_roles_of_their_own() -> None:
    big = pod("a-1").replace("containers: []", "containers: [{name: big}]")
    (group,) = groups(podgroup(UPSTREAM, "minMember: 3") + pod() + big + pod("a-2"))
    assert [Role(role.name, role.count) for role in group.roles] == [Role("worker-1", 2), Role("worker-2", 1)]


def test_a_class_beside_a_number_for_it_is_taken() -> None:
    text = podgroup(UPSTREAM, f"{GANG}, priorityClassName: high") + pod()
    (group,) = groups(text.replace("{name: a}", "{name: a, annotations: {muster.io/priority: '7'}}", 1))
    assert group.priority == 7


def test_a_podgroup_gets_what_its_workload_template_says() -> None:
    text = WORKLOAD + podgroup(UPSTREAM, "workloadRef: {workloadName: a, templateName: w}") + pod()
    (group,) = groups(text)
    assert (group.min_count, group.disruption_mode) == (1, DisruptionMode.SINGLE)
