"""Submissions over HTTP at a wanted rate or as fast as possible, and when each was sent, acknowledged and bound."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from federation.cli.benches.wire import Wire, WireError, connect

POLL_S: Final = 0.02
BOUND: Final = frozenset({"Bound", "Running"})


@dataclass(slots=True)
class Times:
    """By name or uid: monotonic seconds."""

    sent_s: dict[str, float] = field(default_factory=dict)  # by uid, once acknowledged
    acknowledged_s: dict[str, float] = field(default_factory=dict)
    bound_s: dict[str, float] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    unwatched: str = ""  # why bindings are not seen any more

    def answer_s(self) -> list[float]:
        return [at_s - self.sent_s[uid] for uid, at_s in self.acknowledged_s.items()]

    def binding_s(self) -> list[float]:
        """From sending to seeing `Bound` land, of those that were bound."""
        return [at_s - self.sent_s[uid] for uid, at_s in self.bound_s.items() if uid in self.sent_s]


def gang(name: str, *, pods: int, gpus: int, run_s: float) -> dict[str, Any]:
    """A manifest of `pods` equal pods, as people write them."""
    container = {
        "name": "main",
        "image": "registry.example.com/bench:1",
        "resources": {"limits": {"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": gpus}},
    }
    template = {
        "metadata": {"annotations": {"simkube/run-seconds": str(run_s)}},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container]},
    }
    return {"name": name, "grace_s": 1, "roles": [{"count": pods, "template": template}]}


def percentile(values: list[float], share: float) -> float:
    """Of the sorted values, the one that `share` of them do not exceed; 0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


async def submit_all(
    wires: list[Wire], manifests: list[dict[str, Any]], times: Times, *, per_s: float = 0.0, run_id: str
) -> None:
    """Hand in all of them over these connections; `per_s` spaces them evenly (0: as fast as answers come)."""
    began_s = time.monotonic()
    jobs = iter(enumerate(manifests))

    async def work(wire: Wire) -> None:
        for number, manifest in jobs:
            due_s = began_s + number / per_s if per_s else 0.0
            if (pause_s := due_s - time.monotonic()) > 0:
                await asyncio.sleep(pause_s)
            await _submit(wire, manifest, f"{run_id}-{number}", times, due_s)

    await asyncio.gather(*(work(wire) for wire in wires))


async def _submit(wire: Wire, manifest: Mapping[str, Any], request_id: str, times: Times, due_s: float) -> None:
    """`due_s`: when it should have been sent; a late sender must not make the server look fast."""
    sent_s = min(time.monotonic(), due_s) if due_s else time.monotonic()
    status, content = await wire.post("/v1/podgroups", json.dumps(manifest).encode(), request_id)
    now_s = time.monotonic()
    answer = json.loads(content)
    if status != 201:
        times.refused.append(f"{status} {answer.get('reason')}: {answer.get('detail')}")
        return
    times.sent_s[answer["uid"]] = sent_s
    times.acknowledged_s[answer["uid"]] = now_s


async def until_bound(times: Times, count: int, within_s: float) -> bool:
    """Whether `count` of the groups handed in were bound in time. WireError when nobody can tell any more."""
    deadline_s = time.monotonic() + within_s
    while len(times.sent_s.keys() & times.bound_s.keys()) < count:
        if times.unwatched:
            raise WireError(times.unwatched)
        if time.monotonic() >= deadline_s:
            return False
        await asyncio.sleep(POLL_S)
    return True


class Load:
    """Connections to one server and a watch on it; use as a context manager."""

    def __init__(self, port: int, token: str, *, connections: int, watch: bool = True) -> None:
        self._port, self._token, self._connections, self._watch = port, token, connections, watch
        self.times = Times()
        self.wires: list[Wire] = []
        self._watched: Wire | None = None
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Load:
        self.wires = [await connect(self._port, self._token) for _ in range(self._connections)]
        if self._watch:
            self._watched = await connect(self._port, self._token)
            self._watching = asyncio.create_task(self._watch_bound(self._watched))
        return self

    def forget(self) -> None:
        """What was measured so far does not count."""
        self.times = Times(unwatched=self.times.unwatched)

    async def _watch_bound(self, wire: Wire) -> None:
        """Note when each group's `Bound` is seen; until cancelled."""
        try:
            async for decision in wire.events("/v1/watch"):
                if decision["kind"] in BOUND or decision["detail"].get("succeeded"):  # some end before `Bound` is told
                    self.times.bound_s.setdefault(decision["uid"], time.monotonic())
        except WireError as error:
            self.times.unwatched = str(error)

    async def __aexit__(self, *_: object) -> None:
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        for wire in (*self.wires, *([self._watched] if self._watched else [])):
            await wire.close()
