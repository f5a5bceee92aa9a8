"""What the records of a restored fleet do: from `Restored`, over what clusters turned out to hold, to `Recovered`.

Part of the fold (see `state`).
"""

from __future__ import annotations

from typing import ClassVar

from federation.core.books import Books, FoldError, Folds
from federation.core.records import Adopted, Recovered, Recreated, Restored, Unheld
from federation.core.rows import ClusterRow, GroupRow, Home
from placement.model import NOWHERE, ClusterName, DisconnectPolicy, GroupUid, Phase, Position, Token


class RecoveryFold(Books):
    """The fold of records that only a restored fleet has."""

    def _restored(self, position: Position, record: Restored) -> None:
        if record.lineage != self.lineage:
            raise FoldError(position, record, f"the lineage is {self.lineage}")
        self.restored, self.restored_again = record, bool(self.recovering_since)
        self.recovering_since = position
        for row in self.clusters.values():
            row.recovering = not row.dead_at
            row.changed_at = position
            self._rephase(row)

    def _adopted(self, position: Position, record: Adopted) -> GroupRow:
        """The cluster's word for it is all there is: such a home ends by a give-up or `confirm-dead` only."""
        row = self._row(position, record, record.uid)
        cluster = self._recovering(position, record)
        token = Token.parse(record.token)
        if row.phase.terminal:
            raise FoldError(position, record, f"the group is {row.phase}")
        if row.home is None:
            if row.last_token is not None and token <= row.last_token:
                raise FoldError(position, record, f"its last token was {row.last_token}")
            if row.phase is Phase.PENDING:
                self._leave_pending(row)
            self._take_up(row, cluster, token)
        self._expect_home(position, record, row, record.token)
        self._take_as_bound(row, position)
        return row

    def _recreated(self, position: Position, record: Recreated) -> GroupRow:
        """A group that the backup lacks joins with its home."""
        cluster = self._recovering(position, record)
        if record.uid in self.groups:
            raise FoldError(position, record, f"the group {record.uid} is known")
        row = self._enter(position, record, record.submitted, GroupUid(record.uid))
        self._take_up(row, cluster, Token.parse(record.token))
        self._take_as_bound(row, position)
        return row

    def _recovering(self, position: Position, record: Adopted | Recreated) -> ClusterRow:
        cluster = self._cluster(position, record, record.cluster)
        if not cluster.recovering:
            raise FoldError(position, record, f"cluster {cluster.name} does not recover")
        return cluster

    def _take_up(self, row: GroupRow, cluster: ClusterRow, token: Token) -> None:
        row.home = Home(cluster.name, token)
        row.effective_policy = DisconnectPolicy.HOLD_IN_PLACE
        row.attempts += 1
        row.displaced = False
        cluster.tokens[token.position] = row.uid
        self._charge(row, sign=1)

    def _take_as_bound(self, row: GroupRow, position: Position) -> None:
        row.bound_at = row.bound_at or position
        row.pods_bound = row.pods_bound or row.request.min_count
        row.phase = self._phase_of(row)

    def _unheld(self, position: Position, record: Unheld) -> None:
        row = self._row(position, record, record.uid)
        self._expect_home(position, record, row, record.token)
        if not self.recovering_since:
            raise FoldError(position, record, "there is no recovery")
        self._displace(position, row, record)

    def _recovered(self, position: Position, record: Recovered) -> None:
        waiting = {row.name for row in self.clusters.values() if row.recovering}
        if waiting != record.epochs.keys():
            raise FoldError(position, record, f"the clusters that recover are {sorted(waiting)}")
        for name, epoch in record.epochs.items():
            row = self.clusters[ClusterName(name)]
            row.recovering = False
            row.fenced_epoch = row.admitted_epoch = epoch
            row.admitted_at = row.changed_at = position
            row.fence_done = ()
            self._rephase(row)
        self.recovering_since = NOWHERE
        self.restored, self.restored_again = None, False

    FOLDS: ClassVar[Folds] = {
        **Books.FOLDS,
        Restored: _restored,
        Adopted: _adopted,
        Recreated: _recreated,
        Unheld: _unheld,
        Recovered: _recovered,
    }
