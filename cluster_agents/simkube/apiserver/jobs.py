"""The rules of batch/v1 Jobs at the API: defaults, and which updates are allowed. Its controller is elsewhere."""

from typing import Final

from cluster_agents.simkube.apiserver import pods, statuses
from cluster_agents.simkube.apiserver.types import JsonObject

BACKOFF_LIMIT_DEFAULT: Final = 6
PODS_PER_JOB_MAX: Final = 10_000  # our limit of pods in one group, far below Kubernetes' 100,000

JOB_NAME: Final = "batch.kubernetes.io/job-name"
CONTROLLER_UID: Final = "batch.kubernetes.io/controller-uid"
COMPLETION_INDEX: Final = "batch.kubernetes.io/job-completion-index"
TRACKING: Final = "batch.kubernetes.io/job-tracking"

IMMUTABLE_FIELDS: Final = ("completionMode", "selector", "manualSelector")


def created(job: JsonObject) -> JsonObject:
    """The job with the real server's defaults, selector and template labels; refuses (422) what validation refuses."""
    name, uid = job["metadata"]["name"], job["metadata"]["uid"]
    sent: JsonObject = job.get("spec") or {}
    template: JsonObject = sent.get("template") or {}
    pod_spec: JsonObject = template.get("spec") or {}
    if not pod_spec.get("containers"):
        raise statuses.invalid("Job", name, "spec.template.spec.containers", "Required value")
    if pod_spec.get("restartPolicy") not in {"Never", "OnFailure"}:
        why = 'Required value: valid values: "OnFailure", "Never"'
        raise statuses.invalid("Job", name, "spec.template.spec.restartPolicy", why)
    pods.check_containers("Job", name, "spec.template.spec", pod_spec)
    own_labels = {CONTROLLER_UID: uid, JOB_NAME: name, "controller-uid": uid, "job-name": name}
    metadata: JsonObject = template.get("metadata") or {}
    spec: JsonObject = {
        "backoffLimit": BACKOFF_LIMIT_DEFAULT,
        "completionMode": "NonIndexed",
        "suspend": False,
        **sent,
        "selector": {"matchLabels": {CONTROLLER_UID: uid}},
        "template": {**template, "metadata": {**metadata, "labels": {**(metadata.get("labels") or {}), **own_labels}}},
    }
    if spec.get("parallelism") is None:
        spec["parallelism"] = 1
        # Neither given: one pod. Only completions absent: a work queue, done with the first success.
        spec.setdefault("completions", 1)
    if spec["completionMode"] == "Indexed" and spec.get("completions") is None:
        raise statuses.invalid("Job", name, "spec.completions", "Required value: when completion mode is Indexed")
    if max(spec["parallelism"], spec.get("completions") or 0) > PODS_PER_JOB_MAX:
        raise statuses.invalid("Job", name, "spec.parallelism", f"must be less than or equal to {PODS_PER_JOB_MAX}")
    metadata_new = {**job["metadata"], "generation": 1}
    return {**job, "metadata": metadata_new, "spec": spec, "status": {}}


def check_update(old: JsonObject, new: JsonObject) -> None:
    """Refuse (422) changes that Kubernetes refuses: selector and mode always, the template but of a suspended job."""
    before, after, name = old["spec"], new.get("spec") or {}, old["metadata"]["name"]
    for field in IMMUTABLE_FIELDS:
        if before.get(field) != after.get(field):
            raise statuses.invalid("Job", name, f"spec.{field}", "Invalid value: field is immutable")
    if before.get("completions") != after.get("completions"):
        elastic = before["completionMode"] == "Indexed" and after.get("completions") == after.get("parallelism")
        if not elastic:
            raise statuses.invalid("Job", name, "spec.completions", "Invalid value: field is immutable")
    if before["template"] != after.get("template"):
        _check_template(name, old, before["template"], after.get("template") or {})


def _check_template(name: str, old: JsonObject, before: JsonObject, after: JsonObject) -> None:
    """Scheduling directives of a job may change while it is suspended and has never started."""
    mutable = before_start = bool(old["spec"].get("suspend")) and "startTime" not in old.get("status", {})
    fields = ("nodeSelector", "tolerations", "affinity", "schedulingGates") if mutable else ()
    spec_before = {k: v for k, v in before.get("spec", {}).items() if k not in fields}
    spec_after = {k: v for k, v in after.get("spec", {}).items() if k not in fields}
    if spec_before != spec_after or (not before_start and before != after):
        raise statuses.invalid("Job", name, "spec.template", "Invalid value: field is immutable")


def is_finished(job: JsonObject) -> bool:
    """True once the condition Complete or Failed is set."""
    conditions = job.get("status", {}).get("conditions") or ()
    return any(c["type"] in {"Complete", "Failed"} and c["status"] == "True" for c in conditions)
