"""The kubelets' run log: when each container of ours and of others ran. It outlives the API server; checkers read it.

Pure readers only. Nothing here decides anything.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

STARTED: Final = "started"
ENDED: Final = "ended"


class RunLogEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A pod's containers began or ended to run. `at_s` is the kubelet's clock; `group` is "" for pods not ours."""

    cluster: str
    node: str
    namespace: str
    pod: str
    uid: str
    group: str
    token: str
    event: Literal["started", "ended"]
    at_s: float
    gpus: tuple[int, ...] = ()  # of a shared GPU its replicas
    why: str = ""
    instances: tuple[str, ...] = ()  # of MIG: resource and index, `nvidia.com/mig-1g.10gb/0`


@dataclass(frozen=True, slots=True)
class Run:
    """One stretch of running: `ended_s` None while it lasts."""

    started: RunLogEntry
    ended_s: float | None

    @property
    def group(self) -> str:
        """The PodGroup's uid, "" for a pod that is not ours."""
        return self.started.group

    def overlaps(self, other: "Run") -> bool:
        """Did both run at one moment? Touching ends do not count."""
        mine_first = self.ended_s is None or other.started.at_s < self.ended_s
        return mine_first and (other.ended_s is None or self.started.at_s < other.ended_s)


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two runs that should not have met."""

    first: Run
    second: Run


class RunLogBrokenError(Exception):
    """The log is not one a kubelet writes: a start without an end before it, or an end without a start."""

    def __init__(self, entry: RunLogEntry) -> None:
        super().__init__(
            f"{entry.event} out of turn: pod {entry.namespace}/{entry.pod} uid {entry.uid} at {entry.at_s}"
        )
        self.entry = entry


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(RunLogEntry)


def encode_line(entry: RunLogEntry) -> bytes:
    """The entry as one JSON line."""
    return _encoder.encode(entry) + b"\n"


def decode_lines(data: bytes) -> list[RunLogEntry]:
    """The entries of a log file. A last line cut short by a crash is left out: that write never finished."""
    lines = data.split(b"\n")
    return [_decoder.decode(line) for line in lines[:-1] if line]


def runs(entries: Iterable[RunLogEntry]) -> list[Run]:
    """All stretches of running, by start, then pod. Entries of one pod must be in the order they were written."""
    open_runs: dict[tuple[str, str], RunLogEntry] = {}
    found: list[Run] = []
    for entry in entries:
        key = (entry.cluster, entry.uid)
        if entry.event == STARTED:
            if key in open_runs:
                raise RunLogBrokenError(entry)
            open_runs[key] = entry
        elif key not in open_runs:
            raise RunLogBrokenError(entry)
        else:
            found.append(Run(open_runs.pop(key), entry.at_s))
    found += [Run(entry, None) for entry in open_runs.values()]
    return sorted(found, key=lambda run: (run.started.at_s, run.started.cluster, run.started.uid))


def live_at(entries: Iterable[RunLogEntry], at_s: float) -> list[Run]:
    """The runs that are going on at that moment: started at or before it, not ended by it."""
    return [r for r in runs(entries) if r.started.at_s <= at_s and (r.ended_s is None or r.ended_s > at_s)]


def overlaps_between_clusters(entries: Iterable[RunLogEntry]) -> list[Overlap]:
    """Runs of one group at one moment in two clusters (S1). Clocks of all clusters must agree. Empty is good."""
    by_group: dict[str, list[Run]] = {}
    for run in runs(entries):
        if run.group:
            by_group.setdefault(run.group, []).append(run)
    return [o for group in sorted(by_group) for o in _overlaps(by_group[group]) if _clusters_differ(o)]


def device_conflicts(entries: Iterable[RunLogEntry]) -> list[Overlap]:
    """Runs that held the same GPU or MIG instance of the same node at one moment (S5). Empty is good."""
    by_node: dict[tuple[str, str], list[Run]] = {}
    for run in runs(entries):
        if _devices(run):
            by_node.setdefault((run.started.cluster, run.started.node), []).append(run)
    pairs = (o for node in sorted(by_node) for o in _overlaps(by_node[node]))
    return [o for o in pairs if _devices(o.first) & _devices(o.second)]


def _devices(run: Run) -> set[int | str]:
    return {*run.started.gpus, *run.started.instances}


def _clusters_differ(overlap: Overlap) -> bool:
    return overlap.first.started.cluster != overlap.second.started.cluster


def _overlaps(ordered: Sequence[Run]) -> list[Overlap]:
    """All overlapping pairs among runs ordered by start: like comparing every pair, but only with the open ones."""
    found: list[Overlap] = []
    going_on: list[Run] = []
    for run in ordered:
        going_on = [other for other in going_on if other.ended_s is None or other.ended_s > run.started.at_s]
        found += [Overlap(other, run) for other in going_on if other.overlaps(run)]
        going_on.append(run)
    return found
