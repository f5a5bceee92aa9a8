"""What the agent knows of the batch/v1 Jobs it created: one small view each, by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cluster_agents.core.config import LABEL_GROUP, LABEL_TOKEN
from cluster_agents.core.events import KubeObject
from cluster_agents.core.objects import Departed, items, mapping, text, version
from cluster_agents.core.plan import name_tag
from cluster_agents.core.pods import token_of
from placement.model import Token

SUCCEEDED: Final = frozenset({"Complete", "SuccessCriteriaMet"})
FAILED: Final = frozenset({"Failed", "FailureTarget"})
"""Conditions by which a Job's controller says that it is over; the second of each comes while pods still end."""


@dataclass(frozen=True, slots=True)
class JobEnd:
    """What a Job came to by its controller's word."""

    succeeded: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class JobView:
    namespace: str
    name: str
    uid: str
    version: int
    token: str
    group: str
    suspended: bool
    deleting: bool
    end: JobEnd | None

    @property
    def still(self) -> bool:
        """It makes no pods."""
        return self.suspended or self.end is not None


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
    return JobView(
        namespace=text(metadata, "namespace"),
        name=name,
        uid=uid,
        version=version(obj),
        token=token,
        group=group,
        suspended=mapping(obj, "spec").get("suspend") is True,
        deleting=bool(text(metadata, "deletionTimestamp")),
        end=_end_of(obj),
    )


def _end_of(obj: KubeObject) -> JobEnd | None:
    """Failure counts more than success: a Job has one of both."""
    met = {text(one, "type"): one for one in items(obj, "status", "conditions") if text(one, "status") == "True"}
    for kind in sorted(FAILED & met.keys()) or sorted(SUCCEEDED & met.keys()):
        return JobEnd(kind in SUCCEEDED, text(met[kind], "reason") or kind, text(met[kind], "message"))
    return None


def labelled(obj: KubeObject, token: str, group: str) -> KubeObject:
    """A Job as the gang's own that is known by what its pods are told: also where its labels were taken off."""
    pods = mapping(obj, "spec", "template", "spec")
    if text(obj, "metadata", "labels", LABEL_TOKEN) or token_of(pods) != token:
        return obj
    metadata = mapping(obj, "metadata")
    labels = {**mapping(metadata, "labels"), LABEL_TOKEN: token, LABEL_GROUP: group}
    return {**obj, "metadata": {**metadata, "labels": labels}}


class JobBook:
    """Our Jobs by token. A token has one; who copies it with its labels makes others, which say nothing about the gang
    and go with it."""

    def __init__(self) -> None:
        self._jobs: dict[str, dict[str, JobView]] = {}  # by token and uid
        self._departed = Departed()

    def get(self, token: str) -> JobView | None:
        """The gang's own, which has its name, and was there first; without it, any other."""
        views = self._jobs.get(token)
        if not views:
            return None
        name_ends = f"-{name_tag(token)}" if len(views) > 1 else ""
        return min(views.values(), key=lambda view: not view.name.endswith(name_ends))

    def moving(self, token: str) -> JobView | None:
        """One that may make pods yet, of whatever name."""
        return next((view for view in self._jobs.get(token, {}).values() if not view.still), None)

    def all_of(self, token: str) -> list[JobView]:
        """The gang's own and its copies."""
        return list(self._jobs.get(token, {}).values())

    def tokens(self) -> list[str]:
        return sorted(self._jobs)

    def put(self, view: JobView) -> bool:
        """Take in a newer view."""
        views = self._jobs.get(view.token, {})
        before = views.get(view.uid)
        if view.uid in self._departed or (before is not None and before.version >= view.version):
            return False
        self._jobs[view.token] = {**views, view.uid: view}
        return True

    def remove(self, token: str, uid: str) -> bool:
        views = self._jobs.get(token, {})
        if uid not in views:
            return False
        del views[uid]
        if not views:
            del self._jobs[token]
        self._departed.add(uid)
        return True
