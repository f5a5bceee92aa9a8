"""Manifests that cannot be taken: each with the reason and the field that people are told."""

import pytest

from federation.manifests import dialects
from federation.manifests.faults import BAD_MANIFEST, fault_of
from federation.manifests.strict import ManifestError, read_yaml


def refusal(text: str) -> tuple[str, str]:
    """(reason, field) of the refusal; the manifest must be refused."""
    try:
        for document in read_yaml(text):
            dialects.read(document)
    except BAD_MANIFEST as error:
        fault = fault_of(error)
        return fault.reason, fault.field
    raise AssertionError("it was taken")


def own(spec: str = "", *, metadata: str = "{name: a}", roles: str = "[{template: {}}]", more: str = "") -> str:
    return f"""
apiVersion: muster.io/v1
kind: PodGroup
metadata: {metadata}
spec: {{roles: {roles}{", " if spec else ""}{spec}}}
{more}"""


def job(spec: str = "parallelism: 2", *, metadata: str = "name: a", template: str = "{spec: {}}") -> str:
    return f"""
apiVersion: batch/v1
kind: Job
metadata: {{{metadata}}}
spec: {{template: {template}{", " if spec else ""}{spec}}}
"""


def queue(spec: str, *, metadata: str = "{name: a}") -> str:
    return f"{{apiVersion: muster.io/v1, kind: Queue, metadata: {metadata}, spec: {{{spec}}}}}"


BAD_TEXT = [
    pytest.param("", "EmptyManifest", "", id="nothing"),
    pytest.param("---\n---\n", "EmptyManifest", "", id="empty documents"),
    pytest.param("# only a comment\n", "EmptyManifest", "", id="only a comment"),
    pytest.param("just text", "NotAMapping", "", id="a string"),
    pytest.param("- a\n- b\n", "NotAMapping", "", id="a list"),
    pytest.param("a: [1", "BadYaml", "", id="unclosed list"),
    pytest.param("a: b: c", "BadYaml", "", id="two colons"),
    pytest.param("a: \x01", "BadYaml", "", id="control character"),
    pytest.param("a: &x 1\nb: *x", "AliasRefused", "", id="alias"),
    pytest.param("a: &x 1", "AliasRefused", "", id="anchor alone"),
    pytest.param("a: &a [1]\nb: &b [*a, *a]", "AliasRefused", "", id="the start of a bomb"),
    pytest.param("name: a\nname: b", "DuplicateKey", "name", id="the same key twice"),
    pytest.param("x: {a: 1, a: 2}", "DuplicateKey", "a", id="the same key twice, deeper"),
    pytest.param("1: a", "BadKey", "1", id="a number as key"),
    pytest.param("true: a", "BadKey", "true", id="a truth value as key"),
    pytest.param("[a]: b", "BadKey", "", id="a list as key"),
    pytest.param("name: !!python/object:os.system a", "BadYaml", "", id="a Python object"),
]

BAD_OWN = [
    pytest.param("kind: PodGroup", "UnknownKind", "kind", id="no apiVersion"),
    pytest.param("{apiVersion: v1, kind: Pod}", "UnknownKind", "kind", id="a Pod"),
    pytest.param("{apiVersion: muster.io/v2, kind: PodGroup}", "UnknownKind", "kind", id="a version to come"),
    pytest.param("{apiVersion: muster.io/v1, kind: PodGroup}", "MissingField", "metadata", id="no metadata"),
    pytest.param(own(metadata="[]"), "MissingField", "metadata", id="metadata is a list"),
    pytest.param(own(metadata="{name: a, annotations: {}}"), "UnknownField", "metadata.annotations", id="annotations"),
    pytest.param(own(more="extra: 1"), "UnknownField", "extra", id="unknown field beside spec"),
    pytest.param(own("name: b"), "UnknownField", "spec.name", id="name in metadata and spec"),
    pytest.param(own("replicas: 3"), "UnknownField", "replicas", id="unknown field in spec"),
    pytest.param(own(metadata="{}"), "MissingField", "name", id="no name"),
    pytest.param(own(metadata="{name: Train}"), "BadValue", "name", id="capital in name"),
    pytest.param(own(metadata="{name: -a}"), "BadValue", "name", id="name starts with a dash"),
    pytest.param(own(metadata="{name: 7}"), "BadType", "name", id="name is a number"),
    pytest.param(own(metadata='{name: ""}'), "OutOfRange", "name", id="empty name"),
    pytest.param(own(metadata="{name: a, labels: {x: 1}}"), "BadType", "labels.x", id="label value is a number"),
    pytest.param(own(metadata='{name: a, labels: {"a b": c}}'), "BadValue", "labels.a b", id="blank in label key"),
    pytest.param(own("queue: The Queue"), "BadValue", "queue", id="blank in queue"),
    pytest.param(own('priority: "5"'), "BadType", "priority", id="priority is text"),
    pytest.param(own("priority: 1.5"), "BadType", "priority", id="priority is broken"),
    pytest.param(own("priority: true"), "BadType", "priority", id="priority is a truth value"),
    pytest.param(own("min_count: 0"), "OutOfRange", "min_count", id="min_count is nothing"),
    pytest.param(own("min_count: 2"), "BadValue", "min_count", id="min_count above the pods"),
    pytest.param(own(roles="[]"), "OutOfRange", "roles", id="no roles"),
    pytest.param(own(roles="{}"), "BadType", "roles", id="roles is a mapping"),
    pytest.param(own(roles="[{count: 1}]"), "MissingField", "roles[0].template", id="no template"),
    pytest.param(own(roles="[{template: x}]"), "BadType", "roles[0].template", id="template is text"),
    pytest.param(own(roles="[{template: {}, count: 0}]"), "OutOfRange", "roles[0].count", id="a role without pods"),
    pytest.param(own(roles='[{template: {}, count: "2"}]'), "BadType", "roles[0].count", id="count is text"),
    pytest.param(
        own(roles="[{template: {}, min_count: 2}]"), "BadValue", "roles[0].min_count", id="role's min_count above count"
    ),
    pytest.param(own(roles="[{template: {}}, {template: {}}]"), "BadValue", "roles", id="two roles of one name"),
    pytest.param(
        own(roles="[{template: {}, gpu: {whole: 1, milli: 5}}]"), "BadValue", "roles[0].gpu", id="two GPU kinds"
    ),
    pytest.param(own(roles="[{template: {}, gpu: {mig: 1g5gb}}]"), "BadValue", "roles[0].gpu.mig", id="no MIG profile"),
    pytest.param(own("disruption_mode: some"), "BadValue", "disruption_mode", id="unknown disruption mode"),
    pytest.param(own("disconnect_policy: Stop"), "BadValue", "disconnect_policy", id="unknown disconnect policy"),
    pytest.param(
        own("clusters: {affinity: {region: eu}}"), "BadType", "clusters.affinity.region", id="affinity is text"
    ),
    pytest.param(own("topology: {needed: rack}"), "UnknownField", "topology.needed", id="unknown topology field"),
    pytest.param(own("suspend: maybe"), "BadType", "suspend", id="suspend is neither"),
    pytest.param(own("workload: cronjob"), "BadValue", "workload", id="unknown workload"),
    pytest.param(own("max_run_s: -1"), "OutOfRange", "max_run_s", id="negative run time"),
    pytest.param("roles: [{template: {}}]", "MissingField", "name", id="bare model without a name"),
]

BAD_QUEUE = [
    pytest.param(queue("weight: 0"), "OutOfRange", "weight", id="no weight"),
    pytest.param(queue("gpu_quota: {A100-80: -1}"), "OutOfRange", "gpu_quota.A100-80", id="negative quota"),
    pytest.param(queue("gpu_quota: {A100-80: many}"), "BadType", "gpu_quota.A100-80", id="quota is text"),
    pytest.param(queue("quota: {}"), "UnknownField", "quota", id="unknown field of a queue"),
    pytest.param(
        queue("", metadata="{name: a, labels: {}}"), "UnknownField", "metadata.labels", id="labels of a queue"
    ),
    pytest.param(
        "{apiVersion: muster.io/v1, kind: Queue, metadata: {name: a}, spec: 3}",
        "BadType",
        "spec",
        id="spec is a number",
    ),
]

BAD_JOB = [
    pytest.param("{apiVersion: batch/v1, kind: Job}", "MissingField", "metadata", id="job without metadata"),
    pytest.param(
        job("managedBy: kueue.x-k8s.io/multikueue"), "NotTaken", "spec.managedBy", id="a Job that another one manages"
    ),
    pytest.param(
        "{apiVersion: batch/v1, kind: Job, metadata: {name: a}}", "MissingField", "spec", id="job without spec"
    ),
    pytest.param(job(template="[]"), "MissingField", "spec.template", id="job's template is a list"),
    pytest.param(job(template="{}"), "MissingField", "spec.template.spec", id="job's template without spec"),
    pytest.param(job("parallelism: 0"), "BadValue", "spec.parallelism", id="no parallelism"),
    pytest.param(job("parallelism: true"), "BadValue", "spec.parallelism", id="parallelism is a truth value"),
    pytest.param(job('parallelism: "2"'), "BadValue", "spec.parallelism", id="parallelism is text"),
    pytest.param(job("parallelism: 2, completions: 4"), "NotAGang", "spec.completions", id="more completions"),
    pytest.param(job("parallelism: 2, completions: 1"), "NotAGang", "spec.completions", id="fewer completions"),
    pytest.param(job(metadata="labels: {}"), "BadType", "name", id="job without a name"),
    pytest.param(job(metadata="name: a, labels: 3"), "BadType", "metadata.labels", id="job's labels are a number"),
    pytest.param(job(metadata="name: a, labels: []"), "BadType", "metadata.labels", id="job's labels are a list"),
    pytest.param(job(metadata="name: a, annotations: [x]"), "BadType", "metadata.annotations", id="annotations listed"),
    pytest.param(job('suspend: "false"'), "BadType", "spec.suspend", id="suspend is text"),
    pytest.param(
        job(metadata="name: a, annotations: {muster.io/queue: {}}"), "BadType", "queue", id="a wish that is a mapping"
    ),
    pytest.param(
        job(metadata="name: a, annotations: {muster.io/prio: x}"),
        "UnknownField",
        "metadata.annotations.muster.io/prio",
        id="a wish we do not know",
    ),
    pytest.param(
        job(metadata="name: a, annotations: {muster.io/priority: high}"),
        "BadValue",
        "metadata.annotations.muster.io/priority",
        id="a wish that is no number",
    ),
    pytest.param(
        job(metadata="name: a, annotations: {muster.io/clusters: '{'}"), "BadJson", "", id="a wish that is no JSON"
    ),
    pytest.param(
        job(metadata="name: a, annotations: {muster.io/min-count: '9'}"),
        "BadValue",
        "min_count",
        id="a wish above the pods",
    ),
]


@pytest.mark.parametrize(("text", "reason", "field"), BAD_TEXT + BAD_OWN + BAD_QUEUE + BAD_JOB)
def test_refused_with_reason_and_field(text: str, reason: str, field: str) -> None:
    assert refusal(text) == (reason, field)


def test_at_least_forty_mistakes_are_known() -> None:
    assert len(BAD_TEXT + BAD_OWN + BAD_QUEUE + BAD_JOB) >= 40


def test_what_is_known_is_listed_for_those_who_guessed() -> None:
    with pytest.raises(ManifestError, match=r"PodGroup \(muster.io/v1\)") as caught:
        dialects.read({"apiVersion": "v1", "kind": "Pod"})
    assert "Job (batch/v1)" in caught.value.detail


def test_a_queue_where_a_group_is_wanted_is_refused_with_the_way_out() -> None:
    with pytest.raises(ManifestError, match="muster apply") as caught:
        dialects.read_group({"apiVersion": "muster.io/v1", "kind": "Queue", "metadata": {"name": "a"}})
    assert caught.value.reason == "UnknownKind"


def test_a_list_is_not_called_too_short_for_what_is_wrong_inside_of_it() -> None:
    with pytest.raises(BAD_MANIFEST) as refused:
        dialects.read(next(iter(read_yaml(own(roles="[{template: {}, count: -4}]")))))
    fault = fault_of(refused.value)
    assert (fault.reason, fault.field) == ("OutOfRange", "roles[0].count")
    assert fault.detail == "roles[0].count: Input should be greater than or equal to 1 (got -4)"


def test_a_list_that_is_too_short_by_itself_is_called_so() -> None:
    assert refusal(own(roles="[]")) == ("OutOfRange", "roles")
