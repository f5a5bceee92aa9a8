"""What the runtime is told before a container starts, and what is done when the lease has run out.

The runtime's word goes into `Containers`, and its verdicts to the runtime, to the processes and to the disk.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog

from cluster_agents.core.config import LABEL_TOKEN
from cluster_agents.core.guard import Guard
from cluster_agents.node_guard import nri
from cluster_agents.node_guard.containers import GRACE_S_DEFAULT, Container, Containers
from cluster_agents.node_guard.disk import Disk, Kept
from cluster_agents.node_guard.notes import write_note
from cluster_agents.node_guard.processes import PROC, of_containers, send
from cluster_agents.node_guard.runtime import Refused
from placement.model import GRACE_S_MAX

GRACE: Final = "io.kubernetes.pod.terminationGracePeriod"  # annotation that kubelets give containers, in seconds

log = structlog.get_logger()


class Gate:
    """Between the runtime and the node's processes. Not for several tasks at once to call into: nothing here waits."""

    def __init__(self, guard: Guard, disk: Disk, clock_s: Callable[[], float], proc: Path = PROC) -> None:
        began_s = clock_s()  # who is being stopped since a later time was stopped before the node's last boot
        stopping = {one: min(since_s, began_s) for one, since_s in disk.kept.stopping.items()}
        self.containers = Containers(guard, disk.kept.containers, stopping)
        self._guard = guard
        self._disk = disk
        self._clock_s = clock_s
        self._proc = proc
        self._asked: set[str] = set()  # containers that have been asked to end: once is enough
        self._running: frozenset[str] = frozenset()  # of those that must end, whoever had processes at the last look

    # --- what the runtime says ----------------------------------------------------------------------------------------

    def listed(self, pods: list[nri.PodSandbox], containers: list[nri.Container]) -> None:
        by_id = {pod.id: pod for pod in pods}
        live = [one for one in containers if one.state != nri.STOPPED and one.pod_sandbox_id in by_id]
        ours = [_ours(by_id[one.pod_sandbox_id], one) for one in live]
        found = [one for one in ours if one is not None]
        self.containers.listed([*found, *self._running_unlisted({one.id for one in found})])
        self.keep()
        self.stop_due()

    def _running_unlisted(self, listed: set[str]) -> list[Container]:
        """A runtime leaves out whose state it has lost, though their processes may live."""
        unlisted = {one.id: one for one in self.containers.known if one.id not in listed}
        if not unlisted:
            return []
        running = {process.container for process in of_containers(unlisted.keys(), self._proc)}
        return [unlisted[one] for one in sorted(running)]

    def starting(self, pod: nri.PodSandbox, container: nri.Container) -> None:
        ours = _ours(pod, container)
        if ours is None:
            return
        if not self.containers.may_start(ours, self._clock_s()):
            if self.containers.knows(ours.id):  # its creation had leave; who is refused its start then ends at once
                write_note(ours.note)
            log.info("guard.refused", pod=ours.pod, container=container.name, token=ours.token)
            raise Refused(f"muster: the cluster's lease gives no leave to start {ours.pod} (token {ours.token})")
        self.keep()

    def removed(self, container_id: str) -> None:
        self.containers.gone(container_id)
        self._asked.discard(container_id)
        self.keep()

    # --- what the clock says ------------------------------------------------------------------------------------------

    def stop_due(self) -> None:
        """Signal what must end now. Called again and again, it ends what the last call left."""
        now_s = self._clock_s()
        stops = {stop.container.id: stop for stop in self.containers.stops(now_s)}
        if not stops and not self._running:
            return
        self.keep()  # whoever is asked to end has its grace from now on, not from a later start of this guard
        processes = of_containers(stops.keys(), self._proc)
        self._running = frozenset(process.container for process in processes)
        for container_id in sorted(self._running - self._asked):
            container = stops[container_id].container
            log.warning("guard.stops", pod=container.pod, token=container.token)
            write_note(container.note)
        for process in processes:
            if stops[process.container].kill:
                send(process, signal.SIGKILL, self._proc)
            elif process.root and process.container not in self._asked:
                send(process, signal.SIGTERM, self._proc)
        self.containers.ended(stops.keys() - self._running, now_s)
        self._asked = (self._asked | self._running) & self.containers.stopping.keys()

    def keep(self) -> None:
        """What the next start of this guard must know is written on return."""
        known, stopping = self.containers.known, self.containers.stopping
        self._disk.keep(Kept(tuple(sorted(self._guard.hold)), known, stopping))

    def state(self) -> dict[str, Any]:
        """For whoever looks at the health of it."""
        remaining_s = self._guard.fences_at_s - self._clock_s()
        return {
            "containers": len(self.containers.known),
            "stopping": len(self._running),
            "held": len(self._guard.hold),
            "remaining_s": round(remaining_s, 3),
        }


def _ours(pod: nri.PodSandbox, container: nri.Container) -> Container | None:
    token = pod.labels.get(LABEL_TOKEN, "")
    if not token:
        return None
    return Container(container.id, token, f"{pod.namespace}/{pod.name}", _grace_s(container), _note(pod, container))


def _note(pod: nri.PodSandbox, container: nri.Container) -> str:
    """The kubelet's own file, in its folder of this pod and container; what is mounted there has any name."""
    within = f"/pods/{pod.uid}/containers/{container.name}/"
    return next((str(mount.source) for mount in container.mounts if within in mount.source), "")


def _grace_s(container: nri.Container) -> float:
    text = container.annotations.get(GRACE, "")
    return min(float(text), GRACE_S_MAX) if text.isdecimal() else GRACE_S_DEFAULT
