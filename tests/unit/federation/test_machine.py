"""Random histories: whatever is admitted and judged can be folded, and every invariant holds after each record."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from federation.core.admission import admit
from federation.core.batch import Batch
from federation.core.events import Accepted, Declined, JoinCluster, RemoveCluster, SetIntent, SubmitGroup
from federation.core.invariants import Transitions, check
from federation.core.records import (
    AnyRecord,
    ClusterAdmitted,
    ClusterConfirmedDead,
    ClusterFenced,
    ClusterJoined,
    FenceDone,
    GaveUp,
    Placed,
    Submitted,
    decode_record,
    encode_record,
)
from federation.core.rows import Intent
from federation.core.spreads import spread_uid_of
from federation.core.state import State
from federation.core.verdicts import judge
from federation.protocol.messages import Verdict, VerdictAnswer
from placement.model import DisconnectPolicy, GroupUid, Position
from storage.entry import position
from tests.unit.federation.pump import pod_group

CLUSTERS = ("a", "b", "c")
NAMES = st.sampled_from(["x", "y", "z"])
REQUEST_IDS = st.sampled_from(["r1", "r2", "r3", "r4", "r5", ""])
CLUSTER = st.sampled_from(CLUSTERS)
WHICH = st.integers(min_value=0, max_value=50)
POLICY = st.sampled_from(list(DisconnectPolicy))


class Journal(RuleBasedStateMachine):
    """Inputs gather into a batch judged on committed state alone; then the batch lands, in any order of its records."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State("0000000000001-m")
        self.follower = State("0000000000001-m")
        self.watcher = Transitions()
        self.batch = Batch()
        self.seq = 0
        self.tokens: list[tuple[str, str, str]] = []  # (uid, token, cluster) of every placement so far
        self.accepted: dict[str, str] = {}
        for cluster in CLUSTERS:
            self._land([ClusterJoined(cluster=cluster)])
            self._land([ClusterFenced(cluster=cluster, epoch=1)])
            self._land([ClusterAdmitted(cluster=cluster, epoch=1)])

    def _land(self, records: list[AnyRecord]) -> None:
        self.seq += 1
        for index, record in enumerate(records):
            at = Position(position(self.seq, index))
            self.state.apply(at, record)
            self.watcher.folded(at, record, self.state)
            self.follower.apply(at, decode_record(encode_record(record), at))
            if isinstance(record, Placed):
                row = self.state.groups[self.state.group(record.uid).uid]  # type: ignore[union-attr]
                assert row.home is not None
                self.tokens.append((record.uid, str(row.home.token), record.cluster))
            if isinstance(record, Submitted) and record.request_id:
                self.accepted[record.request_id] = f"{self.state.lineage}.{at}"

    def _offer(self, outcome: Any) -> None:
        if isinstance(outcome, tuple):
            self.batch.add_all(self.state, outcome)
        elif not isinstance(outcome, Accepted | Declined | VerdictAnswer | None):
            self.batch.add(self.state, outcome)

    def land_in_order(self) -> None:
        records, self.batch = self.batch.records, Batch()
        if records:
            self._land(records)

    @rule(order=st.randoms(use_true_random=False))
    def land(self, order: Any) -> None:
        records = list(self.batch.records)
        order.shuffle(records)  # records of one batch are independent of one another
        self.batch = Batch()
        if records:
            self._land(records)

    @rule(name=NAMES, request_id=REQUEST_IDS, policy=POLICY, grace_s=st.sampled_from([0, 30]))
    def submit(self, name: str, request_id: str, policy: DisconnectPolicy, grace_s: int) -> None:
        group = pod_group(name, disconnect_policy=policy, grace_s=grace_s)
        outcome = admit(self.state, SubmitGroup(group, request_id, "sara"), at_ms=0)
        if isinstance(outcome, Accepted):
            assert outcome.uid == self.accepted[request_id]
        self._offer(outcome)

    @rule(name=NAMES, request_id=REQUEST_IDS, of=st.integers(1, 2))
    def submit_spread(self, name: str, request_id: str, of: int) -> None:
        """Alone in its entry: of one batch the children alone have an order."""
        self.land_in_order()
        group = pod_group(name, pods=4, spread={"clusters": of})
        outcome = admit(self.state, SubmitGroup(group, request_id, "sara"), at_ms=0)
        if isinstance(outcome, Accepted):
            assert outcome.uid == f"{self.accepted[request_id]}~{of}"
        elif not isinstance(outcome, Declined):
            assert self.batch.add_all(self.state, outcome)
            self.land_in_order()

    @rule(which=WHICH, intent=st.sampled_from(list(Intent)))
    def intend_for_all(self, which: int, intent: Intent) -> None:
        spreads = [rows for key in sorted(self.state.spreads) if (rows := self.state.spread(*key))]
        if spreads:
            uid = spread_uid_of(spreads[which % len(spreads)][0])
            outcome = admit(self.state, SetIntent(GroupUid(uid), intent, "", "", "sara"), at_ms=0)
            if not isinstance(outcome, Accepted | Declined):
                self.batch.add_all(self.state, outcome)

    @rule(which=WHICH, intent=st.sampled_from(list(Intent)))
    def intend(self, which: int, intent: Intent) -> None:
        uids = sorted(self.state.groups)
        if uids:
            self._offer(admit(self.state, SetIntent(uids[which % len(uids)], intent, "", "", "sara"), at_ms=0))

    @rule(cluster=CLUSTER)
    def place(self, cluster: str) -> None:
        there = self.state.cluster(cluster)
        if there is None or not there.admitted or self.batch.changes("cluster", cluster):
            return
        for row in self.state.pending_groups():
            beside = row.child is not None and any(
                one.home is not None and one.home.cluster == cluster for one in self.state.siblings(row)
            )
            if not beside and not self.batch.changes("group", row.uid):
                policy = row.disconnect_policy.value
                counts = () if row.child is None or row.child.share else (row.request.min_count,)
                self.batch.add(self.state, Placed(uid=row.uid, cluster=cluster, effective_policy=policy, counts=counts))
                return

    @rule(which=WHICH, verdict=st.sampled_from(["Bound", "Running", "Refused", "Released", "Finished"]))
    def tell(self, which: int, verdict: str) -> None:
        """A verdict about any token that ever was, as late and as often as it likes."""
        if not self.tokens:
            return
        uid, token, cluster = self.tokens[which % len(self.tokens)]
        ask = Verdict(ask_id=1, cluster=cluster, uid=uid, token=token, verdict=verdict, pods=1)
        outcome = judge(self.state, ask, at_ms=0)
        if isinstance(outcome, GaveUp) and not outcome.late:
            assert str(self.state.group(uid).home.token) == token  # type: ignore[union-attr]
        self._offer(outcome)

    @rule(cluster=CLUSTER)
    def fence(self, cluster: str) -> None:
        if (row := self.state.cluster(cluster)) is not None:
            self.batch.add(self.state, ClusterFenced(cluster=cluster, epoch=row.fenced_epoch + 1))

    @rule(cluster=CLUSTER, grace_s=st.sampled_from([0, 30]), dead=st.booleans())
    def end_homes(self, cluster: str, grace_s: int, dead: bool) -> None:
        row = self.state.cluster(cluster)
        if row is None or row.admitted:
            return
        if dead:
            self.batch.add(self.state, ClusterConfirmedDead(cluster=cluster, actor="olga", reason="burnt"))
        else:
            self.batch.add(self.state, FenceDone(cluster=cluster, epoch=row.fenced_epoch, grace_s=grace_s))

    @rule(cluster=CLUSTER)
    def admit_cluster(self, cluster: str) -> None:
        row = self.state.cluster(cluster)
        if row is not None and not row.admitted:
            self.batch.add(self.state, ClusterAdmitted(cluster=cluster, epoch=row.fenced_epoch))

    @rule(cluster=CLUSTER)
    def remove(self, cluster: str) -> None:
        self._offer(admit(self.state, RemoveCluster(cluster, "sold", "", "olga"), at_ms=0))

    @rule(cluster=CLUSTER)
    def join(self, cluster: str) -> None:
        self._offer(admit(self.state, JoinCluster(cluster, "default", (), False, "", "olga"), at_ms=0))

    @invariant()
    def everything_holds(self) -> None:
        check(self.state)

    @invariant()
    def a_replica_that_reads_the_journal_knows_the_same(self) -> None:
        assert self.follower.groups == self.state.groups
        assert self.follower.clusters == self.state.clusters
        assert self.follower.queues == self.state.queues
        assert self.follower.pending == self.state.pending

    @invariant()
    def nothing_accepted_is_lost(self) -> None:
        for uid in self.accepted.values():
            assert self.state.group(uid) is not None


TestJournal = Journal.TestCase
TestJournal.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
