"""`python -m tests.unit.placement.optimum`: all instances, a line each; 1 where the engine places too little.

Each line: the share of the optimum where all gangs come at once; the same with priorities; where each is older than the
next, and about the most that serving the older first allows.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from statistics import fmean

from tests.unit.placement.optimum.comparison import (
    INSTANCES,
    MEAN_BY_AGE_MIN,
    MEAN_MIN,
    WORST_MIN,
    by_age,
    gpus_kept_by_age,
    share_at_once,
)
from tests.unit.placement.optimum.instances import draw, with_priorities
from tests.unit.placement.optimum.milp import gpus_max


def main() -> int:
    rows: list[tuple[float, float, float, float]] = []
    for seed in range(INSTANCES):
        one = draw(seed)
        best = gpus_max(one)
        urgent = share_at_once(with_priorities(one, seed))
        rows.append((share_at_once(one), urgent, by_age(one) / best, gpus_kept_by_age(one) / best))
        print("{:3}  at once {:.4f}  with priorities {:.4f}  by age {:.4f} of {:.4f}".format(seed, *rows[-1]))
    at_once, urgent_too, aged, kept = zip(*rows, strict=True)
    print(f"at once  {_told(at_once)}: at least {MEAN_MIN} and {WORST_MIN} are wanted")
    print(f"urgent   {_told(urgent_too)}: likewise, with priorities")
    print(f"by age   {_told(aged)}: mean at least {MEAN_BY_AGE_MIN}")
    print(f"of       {_told(kept)}: about the most for whoever serves the older first")
    enough = all(fmean(one) >= MEAN_MIN and min(one) >= WORST_MIN for one in (at_once, urgent_too))
    return int(not enough or fmean(aged) < MEAN_BY_AGE_MIN)


def _told(found: Sequence[float]) -> str:
    return f"mean {fmean(found):.4f}, worst {min(found):.4f}"


if __name__ == "__main__":
    sys.exit(main())
