"""One simulated node (room, GPUs, guard, link to its API server) and what its kubelet knows of each pod."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum, unique
from itertools import islice

from cluster_agents.core.guard import Guard
from cluster_agents.simkube.apiserver.types import JsonObject
from cluster_agents.simkube.kubelet.asks import Ask
from cluster_agents.simkube.kubelet.types import NodeShape
from cluster_agents.simkube.labels import GPU, GROUP_UID, HOSTNAME, TOKEN


@unique
class Stage(StrEnum):
    """Where a pod's containers are. `WAITING`: admitted, to start (again); `ENDED`: none runs nor will."""

    WAITING = "waiting"
    RUNNING = "running"
    STOPPING = "stopping"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a pod ended. `ran` False: the kubelet never admitted it."""

    phase: str
    reason: str = ""
    message: str = ""
    exit_code: int = 0
    ran: bool = True


@dataclass(slots=True)
class PodRun:
    """What a kubelet knows of one pod bound to its node."""

    uid: str
    namespace: str
    name: str
    node: str
    pod: JsonObject  # as the API server showed it last
    ask: Ask
    stage: Stage
    start_at_s: float = 0.0
    started_at_s: float = 0.0
    stop_at_s: float = 0.0
    stop_why: str = ""
    restarts: int = 0
    gpus: tuple[int, ...] = ()
    instances: tuple[str, ...] = ()  # of MIG, by resource and index
    outcome: Outcome | None = None
    gone: bool = False  # the object is no longer there
    acked: str = ""  # the phase the API server has from us
    confirmed: bool = False  # the final delete was accepted
    call_id: int | None = None  # one call at a time per pod
    attempts: int = 0
    retry_at_s: float = 0.0

    @property
    def ours(self) -> bool:
        """Does the guard care?"""
        return GROUP_UID in self.labels

    @property
    def labels(self) -> Mapping[str, str]:
        """The pod's labels."""
        labels: Mapping[str, str] = self.pod["metadata"].get("labels") or {}
        return labels

    @property
    def token(self) -> str:
        """The token it carries, "" if none."""
        return self.labels.get(TOKEN, "")

    @property
    def live(self) -> bool:
        """Does a container of it exist?"""
        return self.stage in {Stage.RUNNING, Stage.STOPPING}

    @property
    def deleting(self) -> bool:
        """Must it stop because its object is marked or gone?"""
        return self.gone or "deletionTimestamp" in self.pod["metadata"]

    @property
    def grace_s(self) -> float:
        """The longest its containers may take to stop."""
        marked = self.pod["metadata"].get("deletionGracePeriodSeconds")
        own = self.pod["spec"].get("terminationGracePeriodSeconds", 30)
        return float(own if marked is None else marked)


@dataclass(slots=True)
class Node:
    """One node's state. Capacity is counted from the PodRuns that have not ended."""

    shape: NodeShape
    guard: Guard | None
    boots: int = 0
    up: bool = True
    cut: bool = False
    agent_cut: bool = False
    registered: bool = False
    status_due: bool = False  # Ready must be said anew: after a gap, a reboot or a change of GPUs
    lease_made: bool = False
    beat_at_s: float = 0.0
    ill: frozenset[int] = frozenset()
    calls: dict[str, int] = field(default_factory=dict)  # purpose -> call under way
    retry_at_s: float = 0.0
    attempts: int = 0
    list_due: bool = False
    gone_meanwhile: set[str] = field(default_factory=set)  # uids, since the list under way was asked for
    pods: dict[str, PodRun] = field(default_factory=dict)  # uid -> run
    used: Ask = field(default_factory=Ask)
    holding: int = 0  # pods that count against the pod limit
    gpus_taken: set[int] = field(default_factory=set)
    instances_taken: set[str] = field(default_factory=set)

    @property
    def reachable(self) -> bool:
        """Can it talk to its API server?"""
        return self.up and not self.cut

    def refusal(self, pod: JsonObject, ask: Ask) -> Outcome | None:
        """Why the kubelet would not admit this pod now; None if it would. Worded as kubelets word it."""
        shape = self.shape
        free = self._gpus_free()
        held = dict(self.used.mig)
        devices = [(GPU, ask.gpus, len(free))]
        devices += [(name, asked, shape.mig.get(name, 0) - held.get(name, 0)) for name, asked in ask.mig]
        for resource, asked, available in devices:
            if asked > available:
                message = (
                    f"Allocate failed due to requested number of devices unavailable for {resource}. "
                    f"Requested: {asked}, Available: {available}, which is unexpected"
                )
                return Outcome("Failed", "UnexpectedAdmissionError", message, 1, ran=False)
        labels = {HOSTNAME: shape.name, **shape.labels}
        wanted: Mapping[str, str] = pod["spec"].get("nodeSelector") or {}
        if any(labels.get(key) != value for key, value in wanted.items()):
            message = (
                "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
            )
            return Outcome("Failed", "NodeAffinity", message, 1, ran=False)
        for resource, asked, used, whole in (
            ("cpu", ask.cpu_milli, self.used.cpu_milli, shape.cpu_milli),
            ("memory", ask.memory_mib, self.used.memory_mib, shape.memory_mib),
            ("pods", 1, self.holding, shape.pods_max),
        ):
            if used + asked > whole:
                message = (
                    f"Node didn't have enough resource: {resource}, requested: {asked}, used: {used}, capacity: {whole}"
                )
                return Outcome("Failed", f"OutOf{resource}", message, 1, ran=False)
        return None

    def _gpus_free(self) -> list[int]:
        return [i for i in range(self.shape.gpus) if i not in self.gpus_taken and i not in self.ill]

    def admit(self, run: PodRun) -> None:
        """Give the pod its room and its devices, lowest indices first. It must fit."""
        run.gpus = tuple(self._gpus_free()[: run.ask.gpus])
        assert len(run.gpus) == run.ask.gpus
        self.gpus_taken.update(run.gpus)
        run.instances = tuple(self._instances_for(run.ask))
        assert len(run.instances) == sum(count for _, count in run.ask.mig)
        self.instances_taken.update(run.instances)
        self.used = self.used.plus(run.ask)
        self.holding += 1

    def _instances_for(self, ask: Ask) -> Iterator[str]:
        for name, asked in ask.mig:
            every = (f"{name}/{index}" for index in range(self.shape.mig.get(name, 0)))
            yield from islice((one for one in every if one not in self.instances_taken), asked)

    def release(self, run: PodRun) -> None:
        """Take back what `admit` gave."""
        assert self.gpus_taken.issuperset(run.gpus)
        self.gpus_taken.difference_update(run.gpus)
        assert self.instances_taken.issuperset(run.instances)
        self.instances_taken.difference_update(run.instances)
        self.used = self.used.minus(run.ask)
        self.holding -= 1

    def check_invariants(self) -> None:
        """Room and devices are counted once each and never over-committed."""
        holders = [run for run in self.pods.values() if run.stage is not Stage.ENDED]
        devices = [gpu for run in holders for gpu in run.gpus]
        assert len(devices) == len(set(devices)), (self.shape.name, devices)
        assert set(devices) == self.gpus_taken
        instances = [one for run in holders for one in run.instances]
        assert len(instances) == len(set(instances)), (self.shape.name, instances)
        assert set(instances) == self.instances_taken
        for name, count in self.used.mig:
            assert sum(dict(run.ask.mig).get(name, 0) for run in holders) == count <= self.shape.mig.get(name, 0)
        assert len(holders) == self.holding <= self.shape.pods_max
        assert sum(run.ask.cpu_milli for run in holders) == self.used.cpu_milli <= self.shape.cpu_milli
        assert sum(run.ask.memory_mib for run in holders) == self.used.memory_mib <= self.shape.memory_mib
