"""Servers and one agent over a simulated cluster, put together from the two rigs: what the hop tests are written in.

No faults and no delays; a test holds messages back, loses them or asks another server by the switches of `Wire`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from cluster_agents.core.events import Told
from federation.core.events import Accepted, JoinCluster, ReportArrived, SubmitGroup
from federation.core.records import Placed, decode_record
from federation.core.rows import GroupRow
from federation.manifests import dialects
from federation.protocol.messages import AgentAsk, DesiredAnswer, DesiredAsk, ServerAnswer, Verdict
from placement.model import FenceStrength, Position
from storage.blob import BlobCreate, BlobEffect, BlobEvent, BlobWritten, Outcome
from storage.entry import decode_entry, entry_name, position
from tests.unit.cluster_agents.rig import CLUSTER, GUARDED, Federation, Rig, node, template
from tests.unit.federation.pump import Pump, started

STEP_S = 0.25


def manifest(name: str, *, pods: int = 2, gpus: int = 8, run_s: float | None = None, **spec: Any) -> dict[str, Any]:
    """A gang as people write it."""
    role = {"count": pods, "template": template(gpus=gpus, run_s=run_s)}
    return {
        "apiVersion": "muster.io/v1",
        "kind": "PodGroup",
        "metadata": {"name": name},
        "spec": {"roles": [role | spec.pop("role", {})], **spec},
    }


class Wire(Federation):
    """What the agent reaches: real servers instead of scripted answers."""

    def __init__(self, pump: Pump) -> None:
        super().__init__()
        self.pump = pump
        self.desired_from: str | None = None  # the server that answers for desired state; None: the leader
        self.answers_as_of: int | None = None  # desired state as an old answer would give it
        self.live_at_verdict: list[int] = []  # containers that ran when each verdict was sent
        self.rig: Rig | None = None

    def answer(self, ask: AgentAsk) -> ServerAnswer | None:
        if isinstance(ask, Verdict):
            assert self.rig is not None
            self.verdicts.append(ask)
            self.live_at_verdict.append(len(self.rig.live(ask.token)))
            if not self.takes_verdicts:
                return None
        answer = self.pump.ask_agent(CLUSTER, ask, server=self.desired_from if isinstance(ask, DesiredAsk) else None)
        if isinstance(answer, DesiredAnswer) and self.answers_as_of is not None:
            return msgspec.structs.replace(answer, as_of=self.answers_as_of)
        return answer

    def verdict_names(self, token: str) -> list[str]:
        """The verdicts sent of a token, repeats included."""
        return [verdict.verdict for verdict in self.verdicts if verdict.token == token]


class Fleet:
    """Servers that lead and follow, and the cluster c-1, admitted, with its agent and kubelets."""

    def __init__(self, *, nodes: int = 2, servers: int = 1, gpus: Sequence[int] = ()) -> None:
        """`gpus`: of each node, where they are not all alike."""
        self.pump = started(servers=servers)
        self.wire = Wire(self.pump)
        self.rig = Rig(
            *(node(f"n-{number}", gpus=here) for number, here in enumerate(gpus or (8,) * nodes, start=1)),
            timing=GUARDED,
            start=False,
            fence_strength=FenceStrength.GUARD,
        )
        self.rig.federation = self.wire
        self.wire.rig = self.rig
        self.doorbells_arrive = True
        self.reports_arrive = True
        self.rig.start()
        joined = self.pump.ask(JoinCluster(CLUSTER, "fast", (), False, "join", "olga"))
        assert isinstance(joined, Accepted)
        self.advance(20.0)
        assert self.pump.cluster(CLUSTER).admitted

    def submit(self, document: dict[str, Any]) -> str:
        """Accept a manifest; the group's uid."""
        group = dialects.read_group(document)
        accepted = self.pump.ask(SubmitGroup(group, f"submit-{group.name}", "sara"))
        assert isinstance(accepted, Accepted), accepted
        return accepted.uid

    def advance(self, seconds: float) -> None:
        """Let time pass for both sides, exchanging reports and doorbells in small steps."""
        for _ in range(int(seconds / STEP_S)):
            self.exchange()
            self.rig.advance(STEP_S)
            self.pump.run(STEP_S)
        self.exchange()

    def exchange(self) -> None:
        if self.reports_arrive:
            for report in self.rig.reports:
                self.pump.tell_all(ReportArrived(CLUSTER, report))
            self.rig.reports.clear()
        if self.doorbells_arrive:
            rung, self.pump.rung = self.pump.rung, []
            for _, message in rung:
                self.rig.tell(Told(message))  # type: ignore[arg-type]

    # --- what is seen ---

    def group(self, uid: str) -> GroupRow:
        return self.pump.group(uid)

    def token(self, uid: str) -> str:
        """Of its home."""
        home = self.group(uid).home
        assert home is not None
        return str(home.token)

    def records(self, uid: str) -> list[str]:
        """The kinds of all records about the group, in order."""
        return [type(line.record).__name__ for line in self.pump.state.history(uid)]


def hold_placements(pump: Pump) -> list[list[str]]:
    """Let no entry with a `Placed` land until `pump.on_store` is None again; the uids in each that was tried."""
    tried: list[list[str]] = []

    def held(server: str, effect: BlobEffect) -> BlobEvent | None:
        seq = pump.replicas[server].journal.next_seq
        if not isinstance(effect, BlobCreate) or effect.name != entry_name(seq):
            return None
        records = [decode_record(data, Position(position(seq))) for data in decode_entry(effect.data, seq).records]
        placed = [record.uid for record in records if isinstance(record, Placed)]
        if not placed:
            return None
        if placed not in tried:
            tried.append(placed)
        return BlobWritten(effect.op, Outcome.UNKNOWN)

    pump.on_store = held
    return tried
