"""What the demo submits: jobs of the Philly trace as PodGroups, times compressed, and three queues for their users.

Pure: text in, values out. How the slice was chosen is told in `examples/philly/README.md`.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

GPUS_PER_POD: Final = 8  # what a node of the fleet has: larger jobs are gangs of such pods
GRACE_S: Final = 2
RUN_S: Final = (3, 20)  # shortest and longest run
CLIQUE_GPUS_MAX: Final = 32  # larger gangs do not ask to be within one NVLink domain
RUN_SECONDS: Final = "simkube/run-seconds"
ALL_PRODUCTS: Final = "*"

LARGE: Final = ("A100-80", "H100-80", "H200-141")
SMALL: Final = "L4-24"
SMALL_GPUS_MAX: Final = 4

QUEUE_OF: Final = {
    **dict.fromkeys(("ee9e8c", "0e4a51", "103959"), "ee9e8c"),
    **dict.fromkeys(("2869ce", "7f04ca", "6c71a0"), "2869ce"),
}
QUEUE_OF_OTHERS: Final = "b436b2"
"""Three queues of similar load, each named after the virtual cluster in it that has most gangs."""


@dataclass(frozen=True, slots=True)
class TraceJob:
    """One line of the slice; `at_s` counts from its first job."""

    row: int
    at_s: float
    duration_s: float
    gpus: int
    virtual_cluster: str


@dataclass(frozen=True, slots=True)
class Job:
    """What is submitted `at_s` seconds after the first, and asked to run `run_s` once all of it has started."""

    name: str
    queue: str
    at_s: float
    run_s: int
    gpus_of_pods: tuple[int, ...]  # by rank
    products: tuple[str, ...]

    @property
    def gpus(self) -> int:
        return sum(self.gpus_of_pods)

    @property
    def pods(self) -> int:
        return len(self.gpus_of_pods)


def read_jobs(text: str) -> list[TraceJob]:
    """The lines of `jobs.csv`, by time of submission."""
    rows = list(csv.DictReader(io.StringIO(text)))
    times = [datetime.fromisoformat(row["timestamp"]) for row in rows]
    first = min(times)
    found = [
        TraceJob(int(r["row"]), (at - first).total_seconds(), float(r["duration"]), int(r["num_gpus"]), r["cluster"])
        for r, at in zip(rows, times, strict=True)
    ]
    return sorted(found, key=lambda job: (job.at_s, job.row))


def shares(text: str) -> dict[str, float]:
    """Each queue's share of the GPU-hours of the whole trace, from `virtual_clusters.csv`."""
    hours: dict[str, float] = {}
    for row in csv.DictReader(io.StringIO(text)):
        queue = queue_of(row["cluster"])
        hours[queue] = hours.get(queue, 0.0) + float(row["gpu_hours"])
    total = sum(hours.values())
    return {queue: hours[queue] / total for queue in sorted(hours)}


def queue_bodies(share_of: Mapping[str, float], fleet_gpus: int) -> dict[str, dict[str, Any]]:
    """What to apply for each queue: its share as weight, and as quota of the fleet's GPUs."""
    return {
        queue: {"weight": round(100 * share), "gpu_quota": {ALL_PRODUCTS: round(share * fleet_gpus)}}
        for queue, share in share_of.items()
    }


def queue_of(virtual_cluster: str) -> str:
    return f"vc-{QUEUE_OF.get(virtual_cluster, QUEUE_OF_OTHERS)}"


def compressed(trace: Sequence[TraceJob], *, arrive_within_s: float) -> list[Job]:
    """The jobs as the demo runs them: arrivals keep their proportions, runs their order."""
    last_s = max((job.at_s for job in trace), default=0.0) or 1.0
    return [
        Job(
            name=f"philly-{job.row}",
            queue=queue_of(job.virtual_cluster),
            at_s=job.at_s / last_s * arrive_within_s,
            run_s=run_seconds(job.duration_s),
            gpus_of_pods=pods_of(job.gpus),
            products=products_of(job),
        )
        for job in trace
    ]


def run_seconds(duration_s: float) -> int:
    """The fourth root: minutes become 3 s, a day 17 s; who ran longer does not run shorter."""
    least, most = RUN_S
    return min(most, max(least, round(math.sqrt(math.sqrt(duration_s)))))


def pods_of(gpus: int) -> tuple[int, ...]:
    """12 GPUs are a pod of 8 and one of 4."""
    whole, rest = divmod(gpus, GPUS_PER_POD)
    return (GPUS_PER_POD,) * whole + ((rest,) if rest else ())


def products_of(job: TraceJob) -> tuple[str, ...]:
    """At least two: the trace names none, so that rows take turns; small jobs also run on small GPUs."""
    if job.gpus <= SMALL_GPUS_MAX:
        return (LARGE[job.row % 3], SMALL)
    left_out = LARGE[job.row % 3] if job.row % 2 else ""
    return tuple(product for product in LARGE if product != left_out)


def manifest(job: Job) -> dict[str, Any]:
    """The job as a PodGroup, as one hands it to the API."""
    sizes = sorted(set(job.gpus_of_pods), reverse=True)
    roles = [_role(job, gpus, "worker" if gpus == sizes[0] else "rest") for gpus in sizes]
    topology = {"preferred": "clique"} if GPUS_PER_POD < job.gpus <= CLIQUE_GPUS_MAX else {}
    return {
        "apiVersion": "muster.io/v1",
        "kind": "PodGroup",
        "metadata": {"name": job.name, "labels": {"trace": "philly"}},
        "spec": {
            "queue": job.queue,
            "grace_s": GRACE_S,
            "run_time_estimate_s": job.run_s,
            "roles": roles,
            **({"topology": topology} if topology else {}),
        },
    }


def _role(job: Job, gpus: int, name: str) -> dict[str, Any]:
    limits = {"nvidia.com/gpu": str(gpus), "cpu": str(8 * gpus), "memory": f"{64 * gpus}Gi"}
    container = {"name": "main", "image": "registry.example.com/train:1", "resources": {"limits": limits}}
    return {
        "name": name,
        "count": job.gpus_of_pods.count(gpus),
        "products": list(job.products),
        "template": {
            "metadata": {"annotations": {RUN_SECONDS: str(job.run_s)}},
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": GRACE_S,
                "containers": [container],
            },
        },
    }
