"""`python -m tests.demo --bug fence-ignored --dir DIR`: the small demo, its agents with that bug; exit code 1 expected.

Jobs run longer than they do in `muster demo`, so that containers which a fence should have stopped are seen.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from federation.cli.demo import perform, workload
from federation.cli.local import commands
from federation.cli.local.state import FleetDir, FleetState
from federation.cli.main import run
from tests.demo.agent import BUGS

RUN_S: Final = (22, 24)  # fence and wait take 12 s: what runs on meanwhile meets its second copy
EVERY: Final = 16  # fewer jobs instead


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.demo", description=__doc__)
    parser.add_argument("--bug", choices=sorted(BUGS), required=True)
    parser.add_argument("--dir", required=True)
    options = parser.parse_args()
    plant(options.bug)
    return run(["demo", "--small", "--plain", "--dir", options.dir])


def plant(bug: str) -> None:
    """Agents of fleets started from here on have the bug."""
    sound = commands._agent

    def bugged(folder: FleetDir, state: FleetState, cluster: str) -> list[str]:
        _, *arguments = sound(folder, state, cluster)
        return [sys.executable, str(Path(__file__).with_name("agent.py")), bug, *arguments]

    commands._agent = bugged
    workload.RUN_S = RUN_S  # type: ignore[misc]
    perform.SMALL_EVERY = EVERY  # type: ignore[misc]


if __name__ == "__main__":
    sys.exit(main())
