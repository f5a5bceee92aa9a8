"""What the agent knows of the batch/v1 Jobs it created: one small view each, by token."""

from __future__ import annotations

from dataclasses import dataclass

from cluster_agents.core.config import LABEL_GROUP, LABEL_TOKEN
from cluster_agents.core.events import KubeObject
from cluster_agents.core.objects import Departed, items, mapping, text, version
from placement.model import Token


@dataclass(frozen=True, slots=True)
class JobView:
    namespace: str
    name: str
    uid: str
    version: int
    token: str
    group: str
    suspended: bool
    finished: bool  # its controller makes no more pods

    @property
    def still(self) -> bool:
        """It makes no pods."""
        return self.suspended or self.finished


def job_view(obj: KubeObject) -> JobView | None:
    """The view of a Job of ours; None when it is not ours or cannot be read."""
    metadata = mapping(obj, "metadata")
    token = text(metadata, "labels", LABEL_TOKEN)
    group = text(metadata, "labels", LABEL_GROUP)
    name, uid = text(metadata, "name"), text(metadata, "uid")
    try:
        Token.parse(token)
    except ValueError:
        return None
    if not name or not uid or not group:
        return None
    ended = any(
        text(one, "type") in {"Complete", "Failed"} and text(one, "status") == "True"
        for one in items(obj, "status", "conditions")
    )
    suspended = mapping(obj, "spec").get("suspend") is True
    return JobView(text(metadata, "namespace"), name, uid, version(obj), token, group, suspended, ended)


class JobBook:
    """Our Jobs by token; a token has one."""

    def __init__(self) -> None:
        self._jobs: dict[str, JobView] = {}
        self._departed = Departed()

    def get(self, token: str) -> JobView | None:
        return self._jobs.get(token)

    def tokens(self) -> list[str]:
        return sorted(self._jobs)

    def put(self, view: JobView) -> bool:
        """Take in a newer view."""
        before = self._jobs.get(view.token)
        if view.uid in self._departed or (before is not None and before.version >= view.version):
            return False
        self._jobs[view.token] = view
        return True

    def remove(self, token: str, uid: str = "") -> bool:
        before = self._jobs.get(token)
        if before is None or (uid and before.uid != uid):
            return False
        del self._jobs[token]
        self._departed.add(before.uid)
        return True
