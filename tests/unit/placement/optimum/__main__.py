"""`python -m tests.unit.placement.optimum`: all instances, a line each; 1 where the engine places too little."""

from __future__ import annotations

import sys

from tests.unit.placement.optimum.comparison import INSTANCES, MEAN_MIN, WORST_MIN, shares


def main() -> int:
    found = shares(range(INSTANCES))
    for seed, share in enumerate(found):
        print(f"{seed:3} {share:.4f}")
    mean, worst = sum(found) / len(found), min(found)
    print(f"mean {mean:.4f} (at least {MEAN_MIN}), worst {worst:.4f} (at least {WORST_MIN})")
    return int(mean < MEAN_MIN or worst < WORST_MIN)


if __name__ == "__main__":
    sys.exit(main())
