"""`muster simulate openb` as people call it, on small lists."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest

from federation.cli.main import run
from federation.cli.session import World
from tests.documents import ROOT
from tests.unit.simulate.openb_lists import node_csv, nodes, pod_csv, pods, recomputed


@pytest.fixture
def lists(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "nodes.csv").write_text(node_csv(nodes()))
    (tmp_path / "pods.csv").write_text(pod_csv(pods()))
    return ("--nodes", str(tmp_path / "nodes.csv"), "--pods", str(tmp_path / "pods.csv"))


def test_report_and_assignments_have_the_documented_form(
    lists: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.csv"
    arguments = ("simulate", "openb", *lists, "--seeds", "42..43,50", "--policy", "fgd", "--assignments", str(rows))
    assert run((*arguments, "-o", "json"), World()) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report) == ["policy", "runs", "mean", "seconds"]
    assert report["policy"] == "fgd"
    assert [one["seed"] for one in report["runs"]] == [42, 43, 50]
    for one in report["runs"]:
        assert list(one) == ["seed", "unallocated_pct"]
        assert list(one["unallocated_pct"]) == ["95", "100", "110", "120", "130"]
    found = recomputed(rows.read_text(), nodes(), pods(), (95, 100, 110, 120, 130))
    assert found[50][100] == pytest.approx(report["runs"][2]["unallocated_pct"]["100"], abs=1e-4)


def test_the_course_counts_what_the_assignments_tell(lists: tuple[str, ...], tmp_path: Path) -> None:
    """Allocated and refused are recomputed from the assignments alone, at every percent at which there is a sample."""
    rows, course = tmp_path / "rows.csv", tmp_path / "course.csv"
    wanted = ("--assignments", str(rows), "--course", str(course))
    assert run(("simulate", "openb", *lists, "--seeds", "42..43", "--policy", "bestfit", *wanted), World()) == 0
    asked = {pod.name: pod.shape.demand_milli for pod in pods()}
    capacity = sum(node.gpus for node in nodes()) * 1000
    expected: dict[tuple[int, int], tuple[float, float]] = {}
    sums: dict[int, list[int]] = {}
    for row in csv.DictReader(StringIO(rows.read_text())):
        placed = sums.setdefault(int(row["seed"]), [0, 0])
        placed[not row["node"]] += asked[row["pod"]]
        shares = (100 * placed[0] / capacity, 100 * placed[1] / capacity)
        expected.setdefault((int(row["seed"]), 100 * sum(placed) // capacity), shares)
    samples = list(csv.DictReader(StringIO(course.read_text())))
    assert list(samples[0]) == ["seed", "load_pct", "allocated_pct", "refused_pct", "fragmented_pct"]
    assert {seed for seed, _ in expected} == {int(sample["seed"]) for sample in samples}
    for sample in samples:
        found = (float(sample["allocated_pct"]), float(sample["refused_pct"]))
        assert found == pytest.approx(expected[int(sample["seed"]), int(sample["load_pct"])], abs=1e-3)
        assert 0.0 <= float(sample["fragmented_pct"]) <= 100.01 - found[0]


def test_the_same_course_is_drawn_as_the_same_bytes(lists: tuple[str, ...], tmp_path: Path) -> None:
    drawn = [tmp_path / "a.svg", tmp_path / "b.svg"]
    for path in drawn:
        assert run(("simulate", "openb", *lists, "--seeds", "42..43", "--plot", str(path)), World()) == 0
    text = drawn[0].read_text()
    assert text == drawn[1].read_text()
    assert all(f">{name}<" in text for name in ("allocated", "refused", "fragmented", "muster, 2 seeds"))


def test_a_file_that_cannot_be_written_is_said_before_anything_is_played(
    lists: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "no" / "such" / "folder.csv")
    for option in ("--assignments", "--course", "--plot"):
        assert run(("simulate", "openb", *lists, "--seeds", "42", option, path), World()) == 1
        told = capsys.readouterr().err
        assert path in told
        assert "seed 42" not in told


def test_a_file_that_is_named_twice_is_not_overwritten(
    lists: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twice = ("--assignments", str(tmp_path / "out.csv"), "--course", str(tmp_path / "x" / ".." / "out.csv"))
    for wanted in (("--assignments", lists[1]), ("--course", lists[3]), twice):
        assert run(("simulate", "openb", *lists, "--seeds", "42", *wanted), World()) == 2
        assert "would overwrite another file" in capsys.readouterr().err
    assert Path(lists[1]).read_text() == node_csv(nodes())


def test_table_has_a_row_per_seed_and_the_mean(lists: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(("simulate", "openb", *lists, "--seeds", "42..43", "--policy", "random"), World()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["SEED", "42", "43", "mean"]


@pytest.mark.parametrize(
    ("seeds", "what"),
    [
        pytest.param("x", "is not a list of seeds", id="no number"),
        pytest.param("9..3", "must rise", id="falls"),
        pytest.param("1..1001", "names more than 1000 seeds", id="too many"),
        pytest.param("4,2..5", "names a seed twice", id="twice"),
        pytest.param("2147483648", "must rise, to 2147483647 at most", id="too large"),
    ],
)
def test_seeds_that_cannot_be_used_are_a_usage_error(
    seeds: str, what: str, lists: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(("simulate", "openb", *lists, "--seeds", seeds), World()) == 2
    assert what in capsys.readouterr().err


def test_list_that_cannot_be_read_is_named_with_the_line(
    lists: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pods.csv").write_text(pod_csv(pods(3)) + "late,many,1,1,1000,\n")
    assert run(("simulate", "openb", *lists, "--seeds", "42"), World()) == 1
    error = capsys.readouterr().err
    assert "pods.csv, line 5: cpu_milli 'many' is not a whole number" in error
    assert "Traceback" not in error


def test_pods_that_ask_for_next_to_nothing_are_refused_before_they_fill_the_memory(
    lists: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = "".join(f"p{at},1,1,0,0,\n" for at in range(200))
    (tmp_path / "pods.csv").write_text(pod_csv(()) + "g,1,1,1,1,\n" + few)
    assert run(("simulate", "openb", *lists, "--seeds", "42"), World()) == 1
    told = capsys.readouterr().err
    assert "would arrive before they ask for 130 % of all GPUs" in told
    assert "10000000 are the limit" in told


def test_missing_file_is_an_error_without_traceback(lists: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(("simulate", "openb", "--nodes", "no/such.csv", *lists[2:], "--seeds", "42"), World()) == 1
    assert capsys.readouterr().err == "error: no/such.csv: No such file or directory\n"


@pytest.mark.parametrize(
    ("options", "what"),
    [
        pytest.param(("--clusters", "4", "--policy", "random"), "--policy random compares no clusters", id="random"),
        pytest.param(("--view-age", "1"), "--view-age needs a placer apart", id="one cluster"),
        pytest.param(("--clusters", "0"), "0 is not in the range 1<=x<=1000", id="no cluster"),
        pytest.param(("--clusters", "1001"), "1001 is not in the range", id="too many clusters"),
        pytest.param(("--view-age", "100001"), "100001 is not in the range", id="too old"),
    ],
)
def test_options_that_do_not_go_together_are_a_usage_error(
    options: tuple[str, ...], what: str, lists: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(("simulate", "openb", *lists, "--seeds", "42", *options), World()) == 2
    assert what in capsys.readouterr().err


def test_report_over_clusters_says_how_they_were_made(
    lists: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--clusters", "4", "--split", "model", "--view-age", "10", "--policy", "bestfit", "-o", "json")
    assert run(("simulate", "openb", *lists, "--seeds", "42", *options), World()) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["clusters"], report["split"], report["view_age"]) == (4, "model", 10)
    assert report["refusals_per_run"] > 0


def test_churn_tells_what_was_refused_at_each_load(lists: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("simulate", "openb", *lists, "--seeds", "42", "--policy", "bestfit", "--churn", "-o", "json")
    assert run(arguments, World()) == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["load"] for row in report["loads"]] == ["90", "95", "98"]
    assert all(0 <= row["refused_pct"] <= 100 for row in report["loads"])


@pytest.mark.parametrize(
    "option", [("--assignments", "rows.csv"), ("--course", "c.csv"), ("--plot", "p.svg"), ("--clusters", "2")]
)
def test_churn_refuses_options_that_it_cannot_honour(
    option: tuple[str, ...], lists: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(("simulate", "openb", *lists, "--churn", *option), World()) == 2
    assert option[0] in capsys.readouterr().err


def test_assignments_are_the_same_bytes_in_every_process_whatever_the_hash_seed(
    lists: tuple[str, ...], tmp_path: Path
) -> None:
    written = []
    for hash_seed in ("0", "1"):
        rows = tmp_path / f"rows-{hash_seed}.csv"
        options = ("--seeds", "42", "--assignments", str(rows))
        subprocess.run(
            [sys.executable, "-m", "federation.cli.main", "simulate", "openb", *lists, *options],
            env={"PYTHONHASHSEED": hash_seed, "PATH": os.environ.get("PATH", os.defpath)},
            cwd=ROOT,
            capture_output=True,
            check=True,
            timeout=120,
        )
        written.append(rows.read_bytes())
    assert written[0] == written[1]
    assert len(written[0].splitlines()) > 30


PHILLY = ("simulate", "philly", "--jobs", str(ROOT / "examples" / "philly" / "jobs.csv"))


def test_a_trace_of_jobs_is_played_and_its_course_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ("--course", str(tmp_path / "c.csv"), "--plot", str(tmp_path / "p.svg"))
    assert run((*PHILLY, "--load", "80", "-o", "json", *files), World()) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["jobs"], report["too_large"], report["gpus"], report["load_pct"]) == (400, 0, 480, 80.0)
    assert [row["gpus"] for row in report["waits"]] == ["all", "1", "2-8", "9-32", "33+"]
    samples = list(csv.DictReader(StringIO((tmp_path / "c.csv").read_text())))
    mean = sum(float(sample["allocated_pct"]) for sample in samples) / len(samples)
    assert mean == pytest.approx(report["allocated_pct"], abs=1.0)
    assert ">waiting<" in (tmp_path / "p.svg").read_text()


def test_a_trace_is_told_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run((*PHILLY, "--clusters", "1", "--nodes", "15"), World()) == 0
    told = capsys.readouterr().out
    assert "3 jobs are larger than a cluster and took no part." in told
    assert [line.split()[0] for line in told.splitlines()[1:5]] == ["all", "1", "2-8", "9-32"]


def test_a_trace_that_cannot_be_read_names_the_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "jobs.csv"
    path.write_text("timestamp,duration,num_gpus\n2017-10-09 07:01:55,1,0\n")
    assert run(("simulate", "philly", "--jobs", str(path)), World()) == 1
    assert "line 2: num_gpus is 0" in capsys.readouterr().err


def test_a_load_that_is_no_number_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    for load in ("nan", "0", "1001"):
        assert run((*PHILLY, "--load", load), World()) == 2
        assert "--load" in capsys.readouterr().err


def test_jobs_of_one_moment_have_no_course_and_are_drawn_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "jobs.csv"
    path.write_text("timestamp,duration,num_gpus\n2017-10-09 07:01:55,1,1\n2017-10-09T09:01:55+02:00,1,1\n")
    files = ("--course", str(tmp_path / "c.csv"), "--plot", str(tmp_path / "p.svg"), "-o", "json")
    assert run(("simulate", "philly", "--jobs", str(path), *files), World()) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["jobs"], report["load_pct"], report["allocated_pct"]) == (2, 0.0, 0.0)
    assert ">waiting<" in (tmp_path / "p.svg").read_text()
