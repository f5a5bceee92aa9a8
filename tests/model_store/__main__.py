"""The searches at full size, for `make exam`: a minute on two cores. `make test` searches smaller bounds."""

import gc
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from tests.model_store.protocol import ALL_RULES, Bounds
from tests.model_store.search import Searched, search

LARGE = [  # the longest first, so that two processes end together
    Bounds(depth=1, numbers=4, terms=2, records=1, collections=1, restarts=1),
    Bounds(depth=1, numbers=4, terms=2, records=2, collections=1, restarts=0, ticks=2),
    Bounds(depth=1, numbers=4, terms=3, records=2, collections=0, restarts=1),
    Bounds(depth=2, numbers=4, terms=2, records=2, collections=1, restarts=0),
    Bounds(depth=2, numbers=5, terms=2, records=1, collections=1, restarts=0),
    Bounds(depth=2, numbers=5, terms=3, records=2, collections=0, restarts=0),
]


def main() -> int:
    """0 when no bounds hold a broken promise."""
    broken = False
    with ProcessPoolExecutor(2) as pool:
        for bounds, (found, took_s) in zip(LARGE, pool.map(_timed, LARGE), strict=True):
            print(f"{bounds}: {found.states} states, {found.broken or 'all right'}, {took_s:.0f} s", flush=True)
            broken = broken or found.broken is not None
    return 1 if broken else 0


def _timed(bounds: Bounds) -> tuple[Searched, float]:
    gc.disable()  # states hold no cycles, and a collection visits all of them
    started_s = time.monotonic()
    found = search(bounds, ALL_RULES)
    return found, time.monotonic() - started_s


if __name__ == "__main__":
    sys.exit(main())
