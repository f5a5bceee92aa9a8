"""What was asked of the API server and what became of its pods: the logs that checkers read afterwards."""

from collections import deque
from dataclasses import dataclass
from typing import Final

from cluster_agents.simkube.apiserver.store import Change
from cluster_agents.simkube.labels import GROUP_UID, TOKEN

REQUESTS_KEPT_MAX: Final = 20_000  # minutes of a busy agent; older ones are dropped


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request and its status. `label` is the resource as faults name it, "" if the path names none."""

    at_s: float
    method: str
    path: str
    label: str
    status: int


@dataclass(frozen=True, slots=True)
class PodAct:
    """One step in a pod's life. `act` is created, ungated, bound, marked (deletionTimestamp) or removed."""

    at_s: float
    act: str
    namespace: str
    name: str
    uid: str
    node: str
    group: str
    token: str


class Audit:
    """The bounded request log and the append-only log of pod acts."""

    __slots__ = ("acts", "counts", "requests")

    def __init__(self) -> None:
        self.requests: deque[LoggedRequest] = deque(maxlen=REQUESTS_KEPT_MAX)
        self.acts: list[PodAct] = []
        self.counts: dict[tuple[str, str, int], int] = {}  # (method, label, status) -> requests so far

    def note_request(self, entry: LoggedRequest) -> None:
        """Keep the request, and count it for good."""
        self.requests.append(entry)
        counted = (entry.method, entry.label, entry.status)
        self.counts[counted] = self.counts.get(counted, 0) + 1

    def note_change(self, change: Change) -> None:
        """Derive the act, if any, from a pod's change."""
        act = _act(change)
        if not act:
            return
        metadata, spec = change.shown["metadata"], change.shown["spec"]
        labels = metadata.get("labels") or {}
        self.acts.append(
            PodAct(
                at_s=change.at_s,
                act=act,
                namespace=change.key[0],
                name=change.key[1],
                uid=metadata["uid"],
                node=spec.get("nodeName") or "",
                group=labels.get(GROUP_UID, ""),
                token=labels.get(TOKEN, ""),
            )
        )


def _act(change: Change) -> str:
    before, after = change.before, change.after
    if before is None:
        return "created"
    if after is None:
        return "removed"
    if not before["spec"].get("nodeName") and after["spec"].get("nodeName"):
        return "bound"
    if before["spec"].get("schedulingGates") and not after["spec"].get("schedulingGates"):
        return "ungated"
    if "deletionTimestamp" not in before["metadata"] and "deletionTimestamp" in after["metadata"]:
        return "marked"
    return ""
