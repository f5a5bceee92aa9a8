"""What records of sizes do: a home that is asked to grow or shrink, and what its agent answered. Part of the fold (see
`state`). The home and its token stay as they are throughout.
"""

from __future__ import annotations

from typing import ClassVar

from msgspec.structs import replace

from federation.core.books import FoldError, Folds
from federation.core.fold_recovery import RecoveryFold
from federation.core.records import Resized, Sized
from federation.core.rows import GroupRow, Intent, Sizing
from placement.elastic import with_counts
from placement.model import Position


class SizeFold(RecoveryFold):
    """The fold of records about how many pods a home has."""

    def _resized(self, position: Position, record: Resized) -> GroupRow:
        row = self._row(position, record, record.uid)
        self._expect_home(position, record, row, record.token)
        assert row.home is not None
        cluster = self.clusters[row.home.cluster]
        if not row.bound_at or row.intent is not Intent.RUN or row.resizing or not cluster.admitted:
            raise FoldError(position, record, f"it is {row.phase} on {cluster.name}, resizing {row.resizing}")
        self._expect_size(position, record, row)
        if row.sizing is not None:
            del cluster.resizes[row.sizing.at]
        cluster.resizes[position] = row.uid
        row.sizing = Sizing(position, row.counts, record.at_most)
        self._set_counts(row, record.counts)
        return row

    def _sized(self, position: Position, record: Sized) -> GroupRow:
        row = self._row(position, record, record.uid)
        self._expect_home(position, record, row, record.token)
        self._expect_size(position, record, row)
        if row.sizing is not None:
            row.sizing = replace(row.sizing, sized_at=position)
        self._set_counts(row, record.counts)
        row.pods_bound = row.placed.pods
        return row

    def _expect_size(self, position: Position, record: Resized | Sized, row: GroupRow) -> None:
        if not record.counts or with_counts(row.request, record.counts) is None:
            raise FoldError(position, record, f"it may not have {record.counts} pods by role")

    def _set_counts(self, row: GroupRow, counts: tuple[int, ...]) -> None:
        """So many pods of each role where its home is; none: all of them."""
        row.counts = () if sum(counts) == row.request.pods else counts
        if row.counts:
            self.small.add(row.uid)
        else:
            self.small.discard(row.uid)

    FOLDS: ClassVar[Folds] = {**RecoveryFold.FOLDS, Resized: _resized, Sized: _sized}
