"""What really happened, as the simulated clusters wrote it down: the kubelets' run logs and the API servers' audits.

Readers only. These are not Muster's words: the checks hold what was acknowledged against them.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

STARTED: Final = "started"
SUCCEEDED: Final = "Succeeded"
ANSWER_S: Final = 30.0
ACTS_PER_ANSWER_MAX: Final = 100_000  # as many as an API server tells at once


class RunLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a kubelet's run log: a pod's containers started or ended."""

    cluster: str
    node: str
    pod: str
    uid: str
    group: str
    token: str
    event: str
    at_s: float
    gpus: tuple[int, ...] = ()
    why: str = ""


class PodAct(msgspec.Struct, frozen=True, kw_only=True):
    """A step in a pod's life, from an API server's audit: created, ungated, bound, marked or removed."""

    at_s: float
    act: str
    name: str
    uid: str
    node: str
    group: str
    token: str


class _Audit(msgspec.Struct, frozen=True):
    acts: list[PodAct]


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """What a node has to give."""

    name: str
    cpu_milli: int = 0
    memory_mib: int = 0
    gpus: int = 0
    labels: dict[str, str] = {}

    @property
    def product(self) -> str:
        return self.labels.get("nvidia.com/gpu.product", "")


@dataclass(frozen=True, slots=True)
class Run:
    """One stretch of a pod's containers running; `ended_s` None while it lasts."""

    cluster: str
    node: str
    pod: str
    uid: str
    group: str
    token: str
    started_s: float
    ended_s: float | None
    gpus: tuple[int, ...]
    why: str = ""  # it ended


@dataclass(frozen=True, slots=True)
class Evidence:
    """All of it, in the clock that the machine's processes share."""

    runs: tuple[Run, ...]  # by start, then cluster and uid
    acts: Mapping[str, Sequence[PodAct]]  # by cluster, in order
    nodes: Mapping[str, Mapping[str, Node]]  # by cluster and name


class BrokenLogError(Exception):
    """A run log that no kubelet writes: an end without a start, or two starts in a row."""

    def __init__(self, line: RunLine) -> None:
        super().__init__(f"{line.event} out of turn: pod {line.pod} of {line.cluster} at {line.at_s:.3f}")
        self.line = line


_lines = msgspec.json.Decoder(RunLine)


def read_run_log(data: bytes) -> list[RunLine]:
    """The lines written so far; a last one cut short is left out."""
    return [_lines.decode(line) for line in data.split(b"\n")[:-1] if line]


def runs_of(lines: Sequence[RunLine]) -> list[Run]:
    """Starts and ends paired. Lines of one pod are in the order they were written."""
    going_on: dict[tuple[str, str], RunLine] = {}
    found: list[Run] = []
    for line in lines:
        key = (line.cluster, line.uid)
        if (line.event == STARTED) == (key in going_on):
            raise BrokenLogError(line)
        if line.event == STARTED:
            going_on[key] = line
        else:
            found.append(_run(going_on.pop(key), line))
    found += [_run(start, None) for start in going_on.values()]
    return sorted(found, key=lambda run: (run.started_s, run.cluster, run.uid))


def _run(start: RunLine, end: RunLine | None) -> Run:
    return Run(
        cluster=start.cluster,
        node=start.node,
        pod=start.pod,
        uid=start.uid,
        group=start.group,
        token=start.token,
        started_s=start.at_s,
        ended_s=end.at_s if end else None,
        gpus=start.gpus,
        why=end.why if end else "",
    )


def ask_nodes(api_url: str) -> dict[str, Node]:
    """The nodes a simulated API server was started with."""
    nodes = msgspec.json.decode(_get(f"{api_url}/simkube/nodes"), type=list[Node])
    return {node.name: node for node in nodes}


def ask_acts(api_url: str) -> list[PodAct]:
    """Every pod act since the API server started."""
    acts: list[PodAct] = []
    while True:
        more = msgspec.json.decode(_get(f"{api_url}/simkube/audit?after={len(acts)}"), type=_Audit).acts
        acts += more
        if len(more) < ACTS_PER_ANSWER_MAX:
            return acts


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=ANSWER_S) as answer:  # noqa: S310 - http on loopback, chosen by us
        data: bytes = answer.read()
        return data
