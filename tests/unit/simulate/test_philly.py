"""A trace of jobs through the engine: who starts when, worked out by hand on a few jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from federation.simulate.openb_lists import ListError
from federation.simulate.philly import SAMPLES, FleetSpec, Job, Sample, at_load, read_jobs, request_of, rows, run_philly

ONE_CLUSTER = FleetSpec(clusters=1, nodes=2, gpus=8)


def job(submitted_s: float, run_s: float, gpus: int, row: int) -> Job:
    return Job(submitted_s, row, run_s, gpus)


def waits(jobs: list[Job], spec: FleetSpec = ONE_CLUSTER) -> dict[str, float]:
    return {row.gpus: row.max_s for row in run_philly(jobs, spec).waits}


def test_a_gang_waits_until_all_of_it_fits() -> None:
    jobs = [job(0.0, 100.0, 8, 1), job(1.0, 60.0, 1, 2), job(2.0, 10.0, 12, 3)]
    assert waits(jobs) == {"all": 98.0, "1": 0.0, "2-8": 0.0, "9-32": 98.0}


def test_who_fits_starts_though_an_older_gang_waits() -> None:
    jobs = [job(0.0, 100.0, 8, 1), job(1.0, 10.0, 16, 2), job(2.0, 10.0, 8, 3)]
    assert waits(jobs) == {"all": 99.0, "2-8": 0.0, "9-32": 99.0}


def test_of_those_that_fit_the_oldest_starts_first() -> None:
    jobs = [job(0.0, 100.0, 16, 1), job(1.0, 50.0, 16, 2), job(2.0, 1.0, 1, 3)]
    assert waits(jobs) == {"all": 148.0, "1": 148.0, "9-32": 99.0}


def test_a_gang_is_never_spread_over_clusters() -> None:
    jobs = [job(0.0, 100.0, 4, 1), job(1.0, 50.0, 5, 2), job(2.0, 1.0, 8, 3)]
    assert waits(jobs, FleetSpec(clusters=2, nodes=1, gpus=8)) == {"all": 49.0, "2-8": 49.0}


@pytest.mark.parametrize(("gpus", "fits"), [(16, 1), (17, 0)])
def test_a_job_takes_part_if_a_whole_cluster_could_hold_it(gpus: int, fits: int) -> None:
    found = run_philly([job(0.0, 1.0, gpus, 1)], ONE_CLUSTER)
    assert (found.jobs, found.too_large) == (fits, 1 - fits)


def test_a_job_is_pods_of_whole_nodes_and_one_with_the_rest() -> None:
    assert [(role.name, role.count, role.gpus) for role in request_of(20, 8).roles] == [
        ("worker", 2, 8),
        ("rest", 1, 4),
    ]
    assert [(role.name, role.count, role.gpus) for role in request_of(8, 8).roles] == [("worker", 1, 8)]
    assert request_of(20, 8).min_count == 3


def test_arrivals_are_stretched_until_they_ask_for_the_load() -> None:
    jobs = at_load([job(0.0, 100.0, 8, 1), job(7.0, 100.0, 8, 2)], gpus=16, load=0.5)
    assert [one.submitted_s for one in jobs] == [0.0, 200.0]
    found = run_philly(jobs, ONE_CLUSTER)
    assert (found.load_pct, found.allocated_pct) == (50.0, 25.0)  # the second begins when the last has arrived


def test_samples_tell_what_is_held_and_what_waits() -> None:
    seen: list[Sample] = []
    run_philly(
        [job(0.0, 250.0, 12, 1), job(100.0, 50.0, 16, 2), job(400.0, 1.0, 1, 3)], ONE_CLUSTER, on_sample=seen.append
    )
    assert len(seen) == SAMPLES - 1  # every second; the last arrival ends it
    assert seen[49] == Sample(0.014, 75.0, 0, 0.0, 25.0)
    assert seen[149] == Sample(0.042, 75.0, 1, 100.0, 25.0)
    assert seen[259] == Sample(0.072, 100.0, 0, 0.0, 0.0)
    assert seen[349] == Sample(0.097, 0.0, 0, 0.0, 0.0)
    assert list(rows(seen[:1])) == [
        "hours,allocated_pct,waiting_groups,waiting_gpus_pct,partly_free_pct\n",
        "0.0,75.0,0,0.0,25.0\n",
    ]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        pytest.param("yesterday,1,1", "timestamp 'yesterday' is not of the form", id="no time"),
        pytest.param("2017-10-09 07:01:55,-1,1", "duration '-1' is not a number of seconds", id="negative"),
        pytest.param("2017-10-09 07:01:55,nan,1", "duration 'nan' is not a number of seconds", id="not a number"),
        pytest.param("2017-10-09 07:01:55,316224001,1", "from 0 to ten years", id="too long"),
        pytest.param("2017-10-09 07:01:55,1,0", "num_gpus is 0", id="no GPU"),
        pytest.param("2017-10-09 07:01:55,1,40001", "num_gpus '40001' is not a whole number", id="large"),
    ],
)
def test_a_list_that_cannot_be_used_says_where_and_why(line: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "jobs.csv"
    path.write_text(f"timestamp,duration,num_gpus\n2017-10-09 07:01:55,1.5,40000\n{line}\n")
    with pytest.raises(ListError) as caught:
        read_jobs(path)
    assert caught.value.line == 3
    assert what in str(caught.value)


def test_a_list_without_jobs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jobs.csv"
    path.write_text("timestamp,duration,num_gpus\n")
    with pytest.raises(ListError, match="no job is listed"):
        read_jobs(path)


def test_jobs_are_read_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    path = tmp_path / "jobs.csv"
    path.write_text("timestamp,duration,num_gpus\n2017-10-09 07:02:00,3,2\n2017-10-09 07:01:55,316224000,1\n")
    assert read_jobs(path) == (Job(0.0, 2, 316224000.0, 1), Job(5.0, 1, 3.0, 2))
