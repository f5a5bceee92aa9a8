"""What a simulated pod "prints": when its containers began and ended, and as whom. There is no program in it."""

from collections.abc import Iterator
from typing import Final

from cluster_agents.simkube.apiserver.types import JsonObject

SHOWN: Final = ("MUSTER_GROUP", "MUSTER_ROLE", "MUSTER_RANK", "MUSTER_WORLD_SIZE", "MUSTER_FENCE_TOKEN")


def lines_of(pod: JsonObject) -> list[str]:
    """The log so far, oldest first; nothing before the containers run."""
    return [
        line for status in pod.get("status", {}).get("containerStatuses") or [] for line in _of_container(pod, status)
    ]


def ended(pod: JsonObject) -> bool:
    """Whether nothing will be added any more."""
    return pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}


def _of_container(pod: JsonObject, status: JsonObject) -> Iterator[str]:
    state = status.get("state") or {}
    running, terminated = state.get("running"), state.get("terminated")
    began = (running or {}).get("startedAt") or (pod["status"].get("startTime") if terminated else None)
    if began:
        yield f"{began} {status['name']} runs on {pod['spec'].get('nodeName', '')}: {_identity(pod, status['name'])}"
    if terminated:
        how = f"exit code {terminated.get('exitCode')} {terminated.get('reason', '')}".rstrip()
        yield f"{terminated.get('finishedAt', '')} {status['name']} ended: {how}"


def _identity(pod: JsonObject, container: str) -> str:
    env = [one for spec in pod["spec"]["containers"] if spec["name"] == container for one in spec.get("env") or []]
    values = {one["name"]: str(one["value"]) for one in env if "value" in one}
    labels = pod["metadata"].get("labels") or {}
    values.setdefault("MUSTER_RANK", str(labels.get("muster.io/rank", "")))
    return " ".join(f"{name}={values[name]}" for name in SHOWN if values.get(name))
