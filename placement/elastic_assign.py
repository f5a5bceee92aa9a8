"""The largest size of an elastic gang that one cluster holds: what explanations are made from. The engine asks all
clusters at once instead."""

from __future__ import annotations

from placement.assign import assign, assign_if_it_fits
from placement.assignment import Assignment
from placement.elastic import largest, sizes_of
from placement.fleet import NodeTable
from placement.model import Because, GangRequest


def assign_smaller(table: NodeTable, request: GangRequest) -> Assignment | tuple[Because, ...]:
    """Nodes for as many pods as fit, fewer than all; or why not even the smallest size fits."""
    sizes = sizes_of(request)
    return largest(sizes, lambda asked: assign_if_it_fits(table, asked)) or assign(table, sizes.smallest)
