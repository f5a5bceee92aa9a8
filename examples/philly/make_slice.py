# ruff: noqa: INP001 - a script beside its data, not a package
"""Makes `jobs.csv` and `virtual_clusters.csv` from the published Philly job list; the same bytes every time.

    python examples/philly/make_slice.py philly_jobs.csv.gz

How the jobs are chosen is in the README beside this file.
"""
# ruff: noqa: INP001 - a script, no package

from __future__ import annotations

import csv
import gzip
import hashlib
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
# GPUs of a job -> how many such jobs the slice holds. Every job of 12, 24, 64 and 128 GPUs is in it.
JOBS_BY_GPUS: Final = {128: 3, 64: 6, 32: 48, 24: 7, 16: 120, 12: 7, 8: 60, 4: 45, 2: 35, 1: 69}
JOB_COLUMNS: Final = ("row", "timestamp", "duration", "num_gpus", "cluster")


def main() -> None:
    with gzip.open(sys.argv[1], "rt", newline="") as file:
        rows = [{"row": str(number), **row} for number, row in enumerate(csv.DictReader(file), start=1)]
    _write("jobs.csv", JOB_COLUMNS, [{key: row[key] for key in JOB_COLUMNS} for row in chosen(rows)])
    _write("virtual_clusters.csv", ("cluster", "jobs", "gpu_hours"), by_virtual_cluster(rows))


def chosen(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Of each size the rows whose digests are smallest, by time of submission, then row."""
    found: list[dict[str, str]] = []
    for gpus, count in JOBS_BY_GPUS.items():
        alike = sorted((row for row in rows if int(row["num_gpus"]) == gpus), key=_digest)
        assert len(alike) >= count, f"{len(alike)} jobs of {gpus} GPUs, {count} wanted"
        found += alike[:count]
    return sorted(found, key=lambda row: (row["timestamp"], int(row["row"])))


def _digest(row: dict[str, str]) -> bytes:
    """Random, and the same on every machine."""
    return hashlib.sha256(",".join(row.values()).encode()).digest()


def by_virtual_cluster(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Jobs and GPU-hours of the whole list, largest first."""
    jobs: dict[str, int] = {}
    gpu_s: dict[str, float] = {}
    for row in rows:
        name = row["cluster"]
        jobs[name] = jobs.get(name, 0) + 1
        gpu_s[name] = gpu_s.get(name, 0.0) + float(row["gpu_time"])
    ordered = sorted(gpu_s, key=lambda name: (-gpu_s[name], name))
    return [{"cluster": n, "jobs": str(jobs[n]), "gpu_hours": f"{gpu_s[n] / 3600:.2f}"} for n in ordered]


def _write(name: str, columns: tuple[str, ...], rows: list[dict[str, str]]) -> None:
    with (HERE / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
