"""The demo's jobs: what the slice of the trace holds, how it becomes PodGroups, and what its queues may use."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from federation.cli.demo.perform import workload
from federation.cli.demo.workload import (
    Job,
    TraceJob,
    compressed,
    manifest,
    pods_of,
    products_of,
    queue_bodies,
    read_jobs,
    run_seconds,
    shares,
)
from federation.manifests import dialects
from placement.model import PodGroup

PHILLY = Path(__file__).parents[3] / "examples" / "philly"


def test_the_slice_holds_400_jobs_with_all_the_largest() -> None:
    sizes = Counter(job.gpus for job in read_jobs((PHILLY / "jobs.csv").read_text()))
    assert sizes == {128: 3, 64: 6, 32: 48, 24: 7, 16: 120, 12: 7, 8: 60, 4: 45, 2: 35, 1: 69}


def test_the_demo_asks_for_more_than_4000_gpus_within_its_quotas() -> None:
    jobs, share_of = workload(small=False)
    bodies = queue_bodies(share_of, 2_080)
    assert sum(job.gpus for job in jobs) == 5_275
    assert {name: body["gpu_quota"]["*"] for name, body in bodies.items()} == {
        "vc-2869ce": 697,
        "vc-b436b2": 582,
        "vc-ee9e8c": 801,
    }
    assert all(job.gpus <= bodies[job.queue]["gpu_quota"]["*"] for job in jobs)


def test_the_small_demo_fits_small_clusters() -> None:
    jobs, share_of = workload(small=True)
    quota = {name: body["gpu_quota"]["*"] for name, body in queue_bodies(share_of, 144).items()}
    assert len(jobs) == 38
    assert all(job.gpus <= quota[job.queue] for job in jobs)


def test_every_job_is_a_manifest_that_the_server_accepts() -> None:
    for job in workload(small=False)[0]:
        group = dialects.read(manifest(job))
        assert isinstance(group, PodGroup)
        assert group.pods == job.pods


@pytest.mark.parametrize(
    ("gpus", "pods"),
    [(1, (1,)), (8, (8,)), (12, (8, 4)), (16, (8, 8)), (24, (8, 8, 8)), (128, (8,) * 16)],
)
def test_a_job_larger_than_a_node_is_a_gang_of_whole_nodes(gpus: int, pods: tuple[int, ...]) -> None:
    assert pods_of(gpus) == pods


def test_twelve_gpus_are_two_roles() -> None:
    spec = manifest(Job("j", "q", 0.0, 5, (8, 4), ("H100-80", "A100-80")))["spec"]
    assert [(role["name"], role["count"]) for role in spec["roles"]] == [("worker", 1), ("rest", 1)]


@pytest.mark.parametrize(
    ("duration_s", "run_s"), [(1, 3), (66, 3), (1_000, 6), (86_400, 17), (160_000, 20), (4_628_226, 20)]
)
def test_run_times_are_compressed_and_keep_their_order(duration_s: float, run_s: int) -> None:
    assert run_seconds(duration_s) == run_s


def trace_job(row: int, gpus: int, *, at_s: float = 0.0) -> TraceJob:
    return TraceJob(row, at_s, 100.0, gpus, "ee9e8c")


@pytest.mark.parametrize("gpus", [1, 4, 8, 64])
def test_every_job_accepts_two_products_or_more(gpus: int) -> None:
    assert all(len(set(products_of(trace_job(row, gpus)))) >= 2 for row in range(12))


def test_only_small_jobs_accept_small_gpus() -> None:
    assert "L4-24" in products_of(trace_job(1, 4))
    assert "L4-24" not in products_of(trace_job(1, 8))


def test_arrivals_keep_their_proportions() -> None:
    found = compressed([trace_job(1, 1), trace_job(2, 1, at_s=250), trace_job(3, 1, at_s=1_000)], arrive_within_s=20)
    assert [job.at_s for job in found] == [0, 5, 20]


def test_jobs_come_in_order_of_submission_then_row() -> None:
    text = (
        "row,timestamp,duration,num_gpus,cluster\n"
        "9,2017-10-01 00:00:10,5.0,1,ee9e8c\n"
        "7,2017-10-01 00:00:10,5.0,1,ee9e8c\n"
        "8,2017-10-01 00:00:00,5.0,1,ee9e8c\n"
    )
    assert [(job.row, job.at_s) for job in read_jobs(text)] == [(8, 0), (7, 10), (9, 10)]


def test_a_queue_gets_the_share_of_its_virtual_clusters_as_weight_and_quota() -> None:
    share_of = shares("cluster,jobs,gpu_hours\nee9e8c,1,200\n0e4a51,1,100\n7f04ca,1,60\nnew,1,40\n")
    assert queue_bodies(share_of, 1_000) == {
        "vc-2869ce": {"weight": 15, "gpu_quota": {"*": 150}},
        "vc-b436b2": {"weight": 10, "gpu_quota": {"*": 100}},
        "vc-ee9e8c": {"weight": 75, "gpu_quota": {"*": 750}},
    }
