"""`python -m tests.survival --runs 5 -o json`: the full-size runs; exit code 1 when a promise was broken."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from tests.survival.cut import CutOutcome, run_cut
from tests.survival.kills import FULL, SMALL, Outcome, Size, run_kills
from tests.survival.takeover import TIMES, run_takeovers


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.survival", description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1, help="of the first run; the others follow")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time: a fleet mostly waits")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("-o", "--output", choices=["json"], default="json")
    options = parser.parse_args()
    size = SMALL if options.small else FULL
    seeds = range(options.seed, options.seed + options.runs)
    with ProcessPoolExecutor(options.jobs) as pool:
        cutting = pool.submit(_cut)  # beside the kills where there are several at a time
        outcomes = list(pool.map(partial(_run, size=size), seeds))
        cut = cutting.result()
    faults = [fault for outcome in outcomes for fault in outcome.verdict.faults]
    report: dict[str, Any] = {"groups_per_run": size.groups, "kills": [asdict(outcome) for outcome in outcomes]}
    report["cut"] = asdict(cut)
    report["takeover_s"] = {preset: _takeovers(preset) for preset in (() if options.small else TIMES)}
    faults += cut.faults
    report["faults"] = len(faults)
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    sys.stdout.flush()
    acknowledged = [outcome.verdict.acknowledged for outcome in outcomes]
    kills = sum(outcome.server_kills + len(outcome.agent_kills) for outcome in outcomes)
    sys.stderr.write(f"acknowledged {acknowledged}, {kills} kills, {len(faults)} faults\n")
    return 1 if faults else 0


def _run(seed: int, size: Size) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="muster-survival-") as folder:
        return run_kills(Path(folder), seed, size)


def _cut() -> CutOutcome:
    with tempfile.TemporaryDirectory(prefix="muster-survival-") as folder:
        return run_cut(Path(folder))


def _takeovers(preset: str) -> list[float]:
    with tempfile.TemporaryDirectory(prefix="muster-survival-") as folder:
        return run_takeovers(Path(folder), preset)


if __name__ == "__main__":
    sys.exit(main())
