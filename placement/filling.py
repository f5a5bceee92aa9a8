"""Filling nodes up in an order, and which topology domains to look at first: what all ways of placing a gang share."""

from __future__ import annotations

import numpy as np

from placement.fleet import GPUS, NodeTable, Shape
from placement.layout import Domains, Ints


def fill(fit: Ints, order: Ints, count: int) -> tuple[Ints, Ints]:
    """Columns and their pods when nodes are filled up in `order` until `count` pods have one.

    Equivalent to walking the order and taking min(fit, left), by cumulative sums.
    """
    held = fit[order]
    filled = held.cumsum()
    last = int(filled.searchsorted(count))
    assert last < len(order), "filling needs room for all"
    used, pods = order[: last + 1], held[: last + 1]
    pods[last] -= filled[last] - count
    return used[pods > 0], pods[pods > 0]


def tightest_first(table: NodeTable, shape: Shape, domains: Domains, codes: Ints, capacity: Ints) -> Ints:
    """`codes` ordered by the free GPUs of their domains (by `capacity` for pods without GPUs), of equal ones the larger
    domain first, then by code."""
    if len(codes) < 2:
        return codes
    accepted = table.accepting(*shape.nodes)
    free = domains.sums(table.free[GPUS] * accepted) if shape.gpus else capacity
    total = domains.sums(table.total[GPUS] * accepted)
    ordered: Ints = codes[np.lexsort((codes, -total[codes], free[codes]))]
    return ordered
