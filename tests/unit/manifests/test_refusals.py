"""Manifests that cannot be taken: each with the reason and the field that people are told."""

import pytest
from pydantic import ValidationError

from federation.manifests import dialects
from federation.manifests.strict import ManifestError, read_yaml

INVALID = "Invalid"  # the model's own checks


def refusal(text: str) -> tuple[str, str]:
    """(reason, field) of the refusal; the manifest must be refused."""
    try:
        for document in read_yaml(text):
            dialects.read(document)
    except ManifestError as error:
        return error.reason, error.field
    except ValidationError as error:
        return INVALID, ".".join(str(part) for part in error.errors()[0]["loc"])
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
    pytest.param("[a]: b", "BadKey", "None", id="a list as key"),
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
    pytest.param(own("replicas: 3"), INVALID, "replicas", id="unknown field in spec"),
    pytest.param(own(metadata="{}"), INVALID, "name", id="no name"),
    pytest.param(own(metadata="{name: Train}"), INVALID, "name", id="capital in name"),
    pytest.param(own(metadata="{name: -a}"), INVALID, "name", id="name starts with a dash"),
    pytest.param(own(metadata="{name: 7}"), INVALID, "name", id="name is a number"),
    pytest.param(own(metadata='{name: ""}'), INVALID, "name", id="empty name"),
    pytest.param(own(metadata="{name: a, labels: {x: 1}}"), INVALID, "labels.x", id="label value is a number"),
    pytest.param(own(metadata='{name: a, labels: {"a b": c}}'), INVALID, "labels.a b.[key]", id="blank in label key"),
    pytest.param(own("queue: The Queue"), INVALID, "queue", id="blank in queue"),
    pytest.param(own('priority: "5"'), INVALID, "priority", id="priority is text"),
    pytest.param(own("priority: 1.5"), INVALID, "priority", id="priority is broken"),
    pytest.param(own("priority: true"), INVALID, "priority", id="priority is a truth value"),
    pytest.param(own("min_count: 0"), INVALID, "min_count", id="min_count is nothing"),
    pytest.param(own("min_count: 2"), INVALID, "", id="min_count above the pods"),
    pytest.param(own(roles="[]"), INVALID, "roles", id="no roles"),
    pytest.param(own(roles="{}"), INVALID, "roles", id="roles is a mapping"),
    pytest.param(own(roles="[{count: 1}]"), INVALID, "roles.0.template", id="no template"),
    pytest.param(own(roles="[{template: x}]"), INVALID, "roles.0.template", id="template is text"),
    pytest.param(own(roles="[{template: {}, count: 0}]"), INVALID, "roles.0.count", id="a role without pods"),
    pytest.param(own(roles='[{template: {}, count: "2"}]'), INVALID, "roles.0.count", id="count is text"),
    pytest.param(own(roles="[{template: {}, min_count: 2}]"), INVALID, "roles.0", id="role's min_count above count"),
    pytest.param(own(roles="[{template: {}}, {template: {}}]"), INVALID, "", id="two roles of one name"),
    pytest.param(own(roles="[{template: {}, gpu: {whole: 1, milli: 5}}]"), INVALID, "roles.0.gpu", id="two GPU kinds"),
    pytest.param(own(roles="[{template: {}, gpu: {mig: 1g5gb}}]"), INVALID, "roles.0.gpu.mig", id="no MIG profile"),
    pytest.param(own("disruption_mode: some"), INVALID, "disruption_mode", id="unknown disruption mode"),
    pytest.param(own("disconnect_policy: Stop"), INVALID, "disconnect_policy", id="unknown disconnect policy"),
    pytest.param(own("clusters: {affinity: {region: eu}}"), INVALID, "clusters.affinity.region", id="affinity is text"),
    pytest.param(own("topology: {needed: rack}"), INVALID, "topology.needed", id="unknown topology field"),
    pytest.param(own("suspend: maybe"), INVALID, "suspend", id="suspend is neither"),
    pytest.param(own("workload: cronjob"), INVALID, "workload", id="unknown workload"),
    pytest.param(own("max_run_s: -1"), INVALID, "max_run_s", id="negative run time"),
    pytest.param("roles: [{template: {}}]", INVALID, "name", id="bare model without a name"),
]

BAD_QUEUE = [
    pytest.param(queue("weight: 0"), INVALID, "weight", id="no weight"),
    pytest.param(queue("gpu_quota: {A100-80: -1}"), INVALID, "gpu_quota.A100-80", id="negative quota"),
    pytest.param(queue("gpu_quota: {A100-80: many}"), INVALID, "gpu_quota.A100-80", id="quota is text"),
    pytest.param(queue("quota: {}"), INVALID, "quota", id="unknown field of a queue"),
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
        "{apiVersion: batch/v1, kind: Job, metadata: {name: a}}", "MissingField", "spec", id="job without spec"
    ),
    pytest.param(job(template="[]"), "MissingField", "spec.template", id="job's template is a list"),
    pytest.param(job(template="{}"), "MissingField", "spec.template.spec", id="job's template without spec"),
    pytest.param(job("parallelism: 0"), "BadValue", "spec.parallelism", id="no parallelism"),
    pytest.param(job("parallelism: true"), "BadValue", "spec.parallelism", id="parallelism is a truth value"),
    pytest.param(job('parallelism: "2"'), "BadValue", "spec.parallelism", id="parallelism is text"),
    pytest.param(job("parallelism: 2, completions: 4"), "NotAGang", "spec.completions", id="more completions"),
    pytest.param(job("parallelism: 2, completions: 1"), "NotAGang", "spec.completions", id="fewer completions"),
    pytest.param(job(metadata="labels: {}"), INVALID, "name", id="job without a name"),
    pytest.param(job(metadata="name: a, labels: 3"), "BadType", "metadata.labels", id="job's labels are a number"),
    pytest.param(job(metadata="name: a, labels: []"), "BadType", "metadata.labels", id="job's labels are a list"),
    pytest.param(job(metadata="name: a, annotations: [x]"), "BadType", "metadata.annotations", id="annotations listed"),
    pytest.param(job('suspend: "false"'), "BadType", "spec.suspend", id="suspend is text"),
    pytest.param(
        job(metadata="name: a, annotations: {muster.io/queue: {}}"), INVALID, "queue", id="a wish that is a mapping"
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
        job(metadata="name: a, annotations: {muster.io/min-count: '9'}"), INVALID, "", id="a wish above the pods"
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
