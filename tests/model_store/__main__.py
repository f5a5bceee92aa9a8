"""The search at full size, for `make exam`: some twenty minutes. `make test` searches smaller bounds."""

import sys
import time

from tests.model_store.protocol import ALL_RULES, Bounds
from tests.model_store.search import search

LARGE = [
    Bounds(depth=1, numbers=4, terms=2, records=1, collections=1, restarts=1),
    Bounds(depth=1, numbers=4, terms=3, records=2, collections=0, restarts=1),
    Bounds(depth=1, numbers=4, terms=2, records=2, collections=1, restarts=0, ticks=2),
    Bounds(depth=2, numbers=4, terms=2, records=2, collections=1, restarts=0),
    Bounds(depth=2, numbers=5, terms=3, records=2, collections=0, restarts=0),
    Bounds(depth=2, numbers=5, terms=2, records=1, collections=1, restarts=0),
]


def main() -> int:
    """0 when no bounds hold a broken promise."""
    for bounds in LARGE:
        started_s = time.monotonic()
        found = search(bounds, ALL_RULES)
        print(f"{bounds}: {found.states} states, {found.broken or 'all right'}, {time.monotonic() - started_s:.0f} s")
        if found.broken:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
