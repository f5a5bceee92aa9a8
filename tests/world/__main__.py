"""`python -m tests.world`: run seeds of the deterministic world, print what they showed, fail on any violation."""

from __future__ import annotations

import argparse
import json
import sys

from tests.world.draw import Restores
from tests.world.mutants import AFTER_A_RESTORE, MUTANTS
from tests.world.run import SeedResult, remembered_seeds, run_seeds, summary


def main() -> int:
    """0 when every promise held (or, with a mutant, when it was caught); 1 otherwise."""
    args = _arguments()
    first, last = (int(part) for part in args.seeds.split(":"))
    seeds = list(range(first, last))
    if first == 0 and not args.mutant:
        seeds = [seed for seed in remembered_seeds() if seed not in seeds] + seeds
    results: list[SeedResult] = []
    restores = Restores.ALWAYS if args.mutant in AFTER_A_RESTORE else Restores(args.restores)
    story = not (args.mutant or args.brief)
    for result in run_seeds(seeds, args.minutes, args.mutant, args.jobs, restores, story=story):
        results.append(result)
        if result.checker:
            _tell(result)
            if args.mutant or args.stop:
                break
    report = summary(results)
    if args.mutant:
        caught = bool(report["violations"])
        report = {"mutant": args.mutant, "caught": caught, "seeds_needed": len(results), **report}
        failed = not caught
    else:
        failed = bool(report["violations"])
    if args.output == "json":
        print(json.dumps(report, indent=2))
    else:
        for key, value in report.items():
            print(f"{key}: {value}")
    return 1 if failed else 0


def _tell(result: SeedResult) -> None:
    print(f"seed {result.seed} ({result.focus}): {result.checker}: {result.why}", file=sys.stderr)
    for line in result.story:
        print(line, file=sys.stderr)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.world", description=__doc__)
    parser.add_argument("--seeds", default="0:100", help="A:B, from A up to but without B")
    parser.add_argument("--minutes", type=float, default=15.0, help="simulated minutes per seed")
    parser.add_argument("--mutant", default="", choices=("", *sorted(MUTANTS)), help="run with this bug, until caught")
    parser.add_argument("--restores", default=Restores.DRAWN, choices=list(Restores), help="which seeds have a restore")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--stop", action="store_true", help="stop at the first violation")
    parser.add_argument("--brief", action="store_true", help="do not tell the story of failing seeds")
    parser.add_argument("-o", dest="output", default="text", choices=("text", "json"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
