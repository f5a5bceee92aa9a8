"""`python -m tests.survival --runs 5 -o json`: the full-size runs; exit code 1 when a promise was broken."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.survival.cut import run_cut
from tests.survival.kills import FULL, SMALL, run_kills


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.survival", description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1, help="of the first run; the others follow")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("-o", "--output", choices=["json"], default="json")
    options = parser.parse_args()
    report: dict[str, Any] = {"groups_per_run": (SMALL if options.small else FULL).groups, "kills": []}
    faults: list[str] = []
    for seed in range(options.seed, options.seed + options.runs):
        with tempfile.TemporaryDirectory(prefix="muster-survival-") as folder:
            outcome = run_kills(Path(folder), seed, SMALL if options.small else FULL)
        report["kills"].append(asdict(outcome))
        faults += outcome.verdict.faults
    with tempfile.TemporaryDirectory(prefix="muster-survival-") as folder:
        cut = run_cut(Path(folder))
    report["cut"] = asdict(cut)
    faults += cut.faults
    report["faults"] = len(faults)
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
