"""What a free share of a GPU is worth, given which shares are asked for and how often: prices of the best packing.

Packing shares into GPUs is the cutting stock problem. The dual prices of its linear relaxation say what each size
adds to the GPUs needed; a free share is worth the best that still fits into it. Sizes that leave a hole nobody fills
carry the price of the hole; small ones of which there are more holes than pods cost nothing.

Source: Gilmore and Gomory, "A linear programming approach to the cutting-stock problem", Operations Research 9, 1961.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

UNITS: Final = 100  # of one GPU: sizes are rounded up to hundredths, which keeps the tables small
UNIT_MILLI: Final = 10
PRICE_SCALE: Final = 1_000_000  # prices are whole millionths of a GPU: scores are integers, equal on all machines
PIVOTS_MAX: Final = 500  # a few times what 100 sizes need; prices are usable wherever it stops

_ENTER: Final = 1e-7  # how much a pattern must gain
_NOTHING: Final = 1e-9

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def units_of(milli: int) -> int:
    """The size of a share, rounded up."""
    return -(-milli // UNIT_MILLI)


def prices(demand: Mapping[int, int]) -> dict[int, int]:
    """The price of each size (in units, from 1 to UNITS) in millionths of a GPU, for pods in these proportions.

    Prices never grow faster than they can be packed: no set of sizes that fits one GPU costs more than one GPU. Sizes
    that nobody asks for have no price. Deterministic: additions happen in a fixed order.
    """
    sizes = sorted(size for size, count in demand.items() if count)
    assert all(0 < size <= UNITS for size in sizes), "sizes are shares of one GPU"
    if not sizes:
        return {}
    per_gpu = np.array([UNITS // size for size in sizes], dtype=np.float64)
    wanted = np.array([demand[size] for size in sizes], dtype=np.float64)
    inverse: Floats = np.diag(1.0 / per_gpu)  # of the basis: at first each size is packed by itself
    packed = wanted / wanted.sum() / per_gpu
    dual = inverse.sum(axis=0)
    for _ in range(PIVOTS_MAX):
        gained, pattern = _best_pattern(sizes, dual.tolist())
        if gained <= 1.0 + _ENTER or not _pivot(inverse, packed, pattern):
            break
        dual = inverse.sum(axis=0)
    found = (np.maximum(dual, 0.0) * PRICE_SCALE).round().astype(np.int64).tolist()
    return dict(zip(sizes, found, strict=True))


def worth_of_shares(priced: Mapping[int, int]) -> Ints:
    """Per free share, from 0 to UNITS units, the most that sizes fitting into it are worth; never falls."""
    worth = [0] * (UNITS + 1)
    for size, price in sorted(priced.items()):
        for room in range(size, UNITS + 1):
            worth[room] = max(worth[room], worth[room - size] + price)
    return np.maximum.accumulate(np.array(worth, dtype=np.int64))


def _best_pattern(sizes: list[int], dual: list[float]) -> tuple[float, dict[int, int]]:
    """The filling of one GPU that is worth most, as pods per place in `sizes`: an unbounded knapsack."""
    worth = [0.0] * (UNITS + 1)
    last = [-1] * (UNITS + 1)
    for at, (size, price) in enumerate(zip(sizes, dual, strict=True)):
        if price <= 0.0:
            continue
        for room in range(size, UNITS + 1):
            value = worth[room - size] + price
            if value > worth[room] + _NOTHING:
                worth[room], last[room] = value, at
    pattern: dict[int, int] = {}
    room = max(range(UNITS + 1), key=lambda one: (worth[one], -one))
    best = worth[room]
    while room and last[room] >= 0:
        pattern[last[room]] = pattern.get(last[room], 0) + 1
        room -= sizes[last[room]]
    return best, pattern


def _pivot(inverse: Floats, packed: Floats, pattern: Mapping[int, int]) -> bool:
    """Brings a pattern into the basis, in place; False where none would have to leave."""
    entering = np.zeros_like(packed)
    for at, pods in sorted(pattern.items()):
        entering += inverse[:, at] * pods
    leaves = entering > _NOTHING
    if not leaves.any():
        return False
    steps = np.where(leaves, packed, np.inf) / np.where(leaves, entering, 1.0)
    row = int(steps.argmin())
    inverse[row] /= entering[row]
    packed[row] = steps[row]
    entering[row] = 0.0
    inverse -= np.multiply.outer(entering, inverse[row])
    packed -= entering * packed[row]
    np.maximum(packed, 0.0, out=packed)
    return True
