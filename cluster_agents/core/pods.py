"""What the agent knows of the cluster's pods: a small view of each, ours by token, the others only for what they use.

Views are replaced only by newer versions, so that answers of our own calls and watch events may come in any order.
What becomes of a pod is decided in `binding`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from operator import add, sub
from typing import Any, Final, NamedTuple

from cluster_agents.core.config import ENV_TOKEN, FINALIZER, GUARD_STOPPED, LABEL_GROUP, LABEL_RANK, LABEL_TOKEN
from cluster_agents.core.events import KubeObject
from cluster_agents.core.objects import Departed, cpu_milli, items, mapping, memory_mib, text, texts, version, whole
from placement.mig import MIG_RESOURCE_PREFIX
from placement.model import Token
from placement.requests import GPU_RESOURCE, GPU_SHARED_RESOURCE

POD_PLACE: Final = "pods"  # how a node's allocatable names what every pod takes one of
TERMINAL: Final = frozenset({"Succeeded", "Failed"})
NUMBER_CHARS_MAX: Final = 9  # of a rank or an index, which anybody may write on a pod of his own
GUARD_FENCED: Final = "GuardFenced"  # reason of a pod that the guard of its node stopped
COMPLETION_INDEX: Final = "batch.kubernetes.io/job-completion-index"


class Amounts(NamedTuple):
    """What a pod asks of its node. `gpus` counts what the device plug-in gives under the name of whole ones, `devices`
    its other names, in order, those of 0 left out."""

    cpu_milli: int = 0
    memory_mib: int = 0
    gpus: int = 0
    devices: tuple[tuple[str, int], ...] = ()

    def plus(self, other: Amounts) -> Amounts:
        devices = _joined(self[3], other[3], add) if self[3] or other[3] else ()
        return Amounts(self[0] + other[0], self[1] + other[1], self[2] + other[2], devices)

    def minus(self, other: Amounts) -> Amounts:
        devices = _joined(self[3], other[3], sub) if self[3] or other[3] else ()
        return Amounts(self[0] - other[0], self[1] - other[1], self[2] - other[2], devices)

    def most(self, other: Amounts) -> Amounts:
        devices = _joined(self[3], other[3], max) if self[3] or other[3] else ()
        return Amounts(max(self[0], other[0]), max(self[1], other[1]), max(self[2], other[2]), devices)

    def beyond(self, other: Amounts) -> Amounts:
        """How much more it is than the other."""
        return self.most(other).minus(other)

    def of(self, resource: str) -> int:
        """How much of a device plug-in's resource."""
        return self.gpus if resource == GPU_RESOURCE else dict(self.devices).get(resource, 0)

    @property
    def least(self) -> int:
        """The lowest of all amounts: negative if more was taken than there was."""
        return min(self[0], self[1], self[2], *(count for _, count in self[3]))


def _joined(
    one: tuple[tuple[str, int], ...], other: tuple[tuple[str, int], ...], join: Callable[[int, int], int]
) -> tuple[tuple[str, int], ...]:
    first, second = dict(one), dict(other)
    joined = ((name, join(first.get(name, 0), second.get(name, 0))) for name in sorted(first.keys() | second.keys()))
    return tuple((name, count) for name, count in joined if count)


def device_amounts(resource: str) -> Amounts:
    """One device of a plug-in's resource; nothing without a name."""
    if not resource:
        return NOTHING
    return Amounts(gpus=1) if resource == GPU_RESOURCE else Amounts(devices=((resource, 1),))


NOTHING: Final = Amounts()


class PodKey(NamedTuple):
    """Written `<namespace>/<name>`."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> PodKey:
        namespace, _, name = text.partition("/")
        return cls(namespace, name)


class MalformedObjectError(ValueError):
    """An object lacks what every Kubernetes object has; it is set aside."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, slots=True)
class PodView:
    """One pod. `token` "" means: not ours; `group` may be "" where labels were taken off. `ended`: its kubelet reported
    every container ended, or that none began."""

    key: PodKey
    uid: str
    version: int
    token: str
    group: str
    rank: int  # label, or annotation where its API server leaves labels of bindings out; -1 if none
    completion_index: int  # of an Indexed Job's pod, -1 if none
    node: str
    phase: str
    deleting: bool
    grace_s: int  # of the deletion; 0 once the kubelet (or nobody) has to confirm it
    finalizers: tuple[str, ...]
    ended: bool
    started: bool  # some container is or was running, init ones too
    disrupted: bool  # evicted, or its node was lost: nobody who owns it wanted it gone
    reason: str
    amounts: Amounts
    labelled: bool  # as ours; guards, and lists of what is ours, go by labels
    scheduler: str  # who else than we may bind it

    @property
    def kept(self) -> bool:
        """Our finalizer still keeps the object."""
        return FINALIZER in self.finalizers

    @property
    def uses(self) -> bool:
        """Counts against its node, as the kubelet and every scheduler count."""
        return bool(self.node) and self.phase not in TERMINAL

    @property
    def quiet(self) -> bool:
        """No container of it runs or can start: it ended, or it is being deleted unbound (no binding succeeds then)."""
        return self.ended or (self.deleting and not self.node)


def pod_view(obj: KubeObject) -> PodView:
    """The view of a pod; MalformedObjectError when it has no name or uid."""
    metadata, spec, status = mapping(obj, "metadata"), mapping(obj, "spec"), mapping(obj, "status")
    name, uid = text(metadata, "name"), text(metadata, "uid")
    if not name or not uid:
        raise MalformedObjectError(f"a pod has no name or uid: {name!r}")
    labels = mapping(metadata, "labels")
    group, token = text(labels, LABEL_GROUP), text(labels, LABEL_TOKEN)
    labelled = bool(group) and _is_token(token)
    finalizers = texts(metadata, "finalizers")
    if not labelled:
        token = token_of(spec) if FINALIZER in finalizers else ""
    ours = labelled or _is_token(token)
    phase = text(status, "phase")
    statuses = items(status, "containerStatuses")
    running, terminated = _container_counts(status)
    began = running or terminated or _some_terminated(items(status, "initContainerStatuses"))
    deleting = bool(text(metadata, "deletionTimestamp"))
    stopped = not running and bool(statuses) and terminated >= len(items(spec, "containers"))
    grace = metadata.get("deletionGracePeriodSeconds")
    return PodView(
        key=PodKey(text(metadata, "namespace"), name),
        uid=uid,
        version=version(obj),
        token=token if ours else "",
        group=group if ours else "",
        rank=_number(text(labels, LABEL_RANK) or text(metadata, "annotations", LABEL_RANK)),
        completion_index=_number(text(metadata, "annotations", COMPLETION_INDEX)),
        node=text(spec, "nodeName"),
        phase=phase,
        deleting=deleting,
        grace_s=grace if isinstance(grace, int) else 0,
        finalizers=finalizers,
        ended=not running if phase in TERMINAL else deleting and stopped,
        started=bool(began),
        disrupted=_disrupted(status),
        reason=text(status, "reason") or (GUARD_FENCED if _fenced(status) else ""),
        amounts=pod_amounts(spec),
        labelled=labelled,
        scheduler=text(spec, "schedulerName"),
    )


def token_of(spec: Mapping[str, Any]) -> str:
    """The token that a pod's containers are told, or an empty text."""
    told = (text(one, "value") for box in items(spec, "containers") for one in items(box, "env") if _names_token(one))
    return next(told, "")


def _names_token(variable: Mapping[str, Any]) -> bool:
    return text(variable, "name") == ENV_TOKEN


def _container_counts(status: Mapping[str, Any]) -> tuple[int, int]:
    """How many containers run (init ones too), and how many main ones have terminated."""
    running = terminated = 0
    for one in items(status, "containerStatuses"):
        state = mapping(one, "state")
        running += "running" in state
        terminated += "terminated" in state
    running += sum("running" in mapping(one, "state") for one in items(status, "initContainerStatuses"))
    return running, terminated


def _some_terminated(statuses: Iterable[Mapping[str, Any]]) -> bool:
    return any("terminated" in mapping(one, "state") for one in statuses)


def _disrupted(status: Mapping[str, Any]) -> bool:
    return any(
        text(one, "type") == "DisruptionTarget" and text(one, "status") == "True" for one in items(status, "conditions")
    )


def _fenced(status: Mapping[str, Any]) -> bool:
    """Does a container say that the guard ended it?"""
    some = (*items(status, "containerStatuses"), *items(status, "initContainerStatuses"))
    return any(text(one, "state", "terminated", "message").rstrip().endswith(GUARD_STOPPED) for one in some)


def _is_token(value: str) -> bool:
    try:
        Token.parse(value)
    except ValueError:
        return False
    return True


def _number(value: str) -> int:
    return int(value) if value.isascii() and value.isdigit() and len(value) <= NUMBER_CHARS_MAX else -1


def pod_amounts(spec: Mapping[str, Any]) -> Amounts:
    """What the scheduler counts: containers and sidecars together, or the largest init step if that is more."""
    running = sidecars = peak = NOTHING
    for one in items(spec, "containers"):
        running = running.plus(_of_container(one))
    for one in items(spec, "initContainers"):
        amounts = _of_container(one)
        if text(one, "restartPolicy") == "Always":
            sidecars = sidecars.plus(amounts)
            peak = peak.most(sidecars)
        else:
            peak = peak.most(sidecars.plus(amounts))
    overhead = mapping(spec, "overhead")
    total = running.plus(sidecars).most(peak)
    if "resources" in spec:
        total = _of_pod(mapping(spec, "resources"), total)
    return total.plus(_read(overhead)) if overhead else total


def _of_pod(resources: Mapping[str, Any], containers: Amounts) -> Amounts:
    """What a pod asks for as a whole counts instead of its containers' sum; its limit does where they ask for none."""
    requests, limits = mapping(resources, "requests"), mapping(resources, "limits")
    cpu, memory = containers.cpu_milli, containers.memory_mib
    if "cpu" in requests or ("cpu" in limits and not cpu):
        cpu = cpu_milli(requests if "cpu" in requests else limits, up=True)
    if "memory" in requests or ("memory" in limits and not memory):
        memory = memory_mib(requests if "memory" in requests else limits, up=True)
    return containers._replace(cpu_milli=cpu, memory_mib=memory)


def _of_container(container: Mapping[str, Any]) -> Amounts:
    requests = mapping(container, "resources", "requests")
    limits = mapping(container, "resources", "limits")
    return _read({**limits, **requests}) if limits or requests else NOTHING


def _read(amounts: Mapping[str, Any]) -> Amounts:
    return Amounts(
        cpu_milli(amounts, up=True), memory_mib(amounts, up=True), whole(amounts, GPU_RESOURCE), parts_in(amounts)
    )


def parts_in(amounts: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    """What is said of parts of GPUs under names of their own."""
    named = [name for name in amounts if name == GPU_SHARED_RESOURCE or name.startswith(MIG_RESOURCE_PREFIX)]
    return tuple((name, count) for name in sorted(named) if (count := whole(amounts, name))) if named else ()


@dataclass(frozen=True, slots=True)
class PodChange:
    """`before` or `after` is None when the pod came or went."""

    before: PodView | None
    after: PodView | None

    @property
    def token(self) -> str:
        view = self.after or self.before
        assert view is not None
        return view.token

    @property
    def key(self) -> PodKey:
        view = self.after or self.before
        assert view is not None
        return view.key


class PodBook:
    """All pods by key, ours also by token."""

    def __init__(self) -> None:
        self._pods: dict[PodKey, PodView] = {}
        self._ours: dict[str, dict[PodKey, PodView]] = {}
        self._departed = Departed()

    def get(self, key: PodKey) -> PodView | None:
        return self._pods.get(key)

    def of(self, token: str) -> Mapping[PodKey, PodView]:
        """Our pods of one token."""
        return self._ours.get(token, {})

    def tokens(self) -> list[str]:
        """The tokens that have pods, in order."""
        return sorted(self._ours)

    def ours(self) -> Iterator[PodView]:
        for token in self.tokens():
            yield from self._ours[token].values()

    def held_by(self, token: str) -> dict[str, Amounts]:
        """What our bound pods of one token use, by node, until they have ended."""
        held: dict[str, Amounts] = {}
        for _, view in sorted(self.of(token).items()):
            if view.node and not view.ended and view.amounts != NOTHING:
                held[view.node] = held.get(view.node, NOTHING).plus(view.amounts)
        return held

    def passed(self, key: PodKey, uid: str, version: int) -> bool:
        """Would `put` of a view with this uid and version change nothing?"""
        before = self._pods.get(key)
        return uid in self._departed or (before is not None and before.version >= version)

    def put(self, view: PodView) -> PodChange | None:
        """Take in a newer view; None when it is not newer than what is known."""
        before = self._pods.get(view.key)
        if self.passed(view.key, view.uid, view.version):
            return None
        if before is not None and before.token and before.token != view.token and before.uid == view.uid:
            # Labels are anybody's to change; what runs stays what it is, and has to be stopped with its gang.
            view = replace(view, token=before.token, group=before.group)
        self._forget(before)
        self._pods[view.key] = view
        if view.token:
            self._ours.setdefault(view.token, {})[view.key] = view
        return PodChange(before, view)

    def mark_bound(self, key: PodKey, uid: str, node: str) -> PodChange | None:
        """Our binding of this pod succeeded: it is on `node`, though its newer version was not seen yet."""
        before = self._pods.get(key)
        if before is None or before.uid != uid or before.node:
            return None
        after = replace(before, node=node)
        self._pods[key] = after
        if after.token:
            self._ours[after.token][key] = after
        return PodChange(before, after)

    def mark_freed(self, key: PodKey, uid: str) -> None:
        """We took our finalizer off. The answer may have the version that is known: the pod is gone with it."""
        before = self._pods.get(key)
        if before is None or before.uid != uid or not before.kept:
            return
        after = replace(before, finalizers=tuple(one for one in before.finalizers if one != FINALIZER))
        self._pods[key] = after
        if after.token:
            self._ours[after.token][key] = after

    def remove(self, key: PodKey, uid: str, at_version: int) -> PodChange | None:
        """The pod with this uid is gone as of `at_version`; None when a newer one of that name is known, or none."""
        before = self._pods.get(key)
        if before is None or before.version > at_version or (uid and before.uid != uid):
            return None
        self._forget(before)
        self._departed.add(before.uid)
        return PodChange(before, None)

    def missing(self, present: Iterable[PodKey]) -> list[PodView]:
        """The known pods that a complete list does not show, in order."""
        shown = set(present)
        return sorted((view for key, view in self._pods.items() if key not in shown), key=lambda view: view.key)

    def _forget(self, view: PodView | None) -> None:
        if view is None:
            return
        del self._pods[view.key]
        if view.token:
            pods = self._ours[view.token]
            del pods[view.key]
            if not pods:
                del self._ours[view.token]
