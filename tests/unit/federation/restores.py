"""Fleets that are backed up and restored while their clusters run on: what tests of a recovery are written in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from federation.cli.store.restoring import Facts, fold, write
from federation.core.records import Adopted, Recovered, Recreated, Restored, Unheld
from federation.protocol.messages import Claim, Claims, ClaimsAnswer, SpecAnswer, SpecAsk
from storage.backends.memory import MemoryStore
from storage.backup import back_up, read_manifest, view
from storage.blob import BlobStore
from storage.root import FORMAT
from storage.verify import verify
from tests.unit.federation.pump import Member, Pump

AT_MS = 1_800_000_000_000


@dataclass
class Agent(Member):
    """A member that knows the groups of its tokens, and of which lineage it heard last."""

    groups: dict[str, str] = field(default_factory=dict)
    heard: str = ""
    keeps_records: bool = True  # False: an agent of an older version
    names_lineage: bool = True  # False: of an older version, too
    kept: dict[str, Claim] = field(default_factory=dict)  # what groups were made from

    def starts(self, uid: str) -> str:
        """The group runs here under its present token."""
        home = self.pump.group(uid).home
        assert home is not None
        assert home.cluster == self.name
        token = str(home.token)
        self.holds.add(token)
        self.groups[token] = uid
        self.heard = self.pump.state.lineage
        self.ask_id += 1
        answer = self.pump.ask_agent(self.name, SpecAsk(ask_id=self.ask_id, cluster=self.name, uid=uid))
        assert isinstance(answer, SpecAnswer)
        assert answer.spec is not None
        self.kept[uid] = Claim(uid, answer.spec, answer.origin)
        self.verdict(uid, "Bound", pods=1)
        return token

    def report(self, **fields: Any) -> None:
        recovering = self.lease.recovering
        live = self.lease.live(self.pump.now_s) and not recovering
        tokens = None if live else tuple(sorted(self.holds))
        uids = tuple(self.groups[token] for token in tokens or ()) if recovering else ()
        lineage = self.heard if recovering else self.pump.state.lineage
        keeps = recovering and self.keeps_records
        recovers = self.lease.recovers if self.names_lineage and self.keeps_records else ""
        said: dict[str, Any] = {"uids": uids, "keeps_records": keeps, "recovers": recovers, **fields}
        super().report(lineage=lineage, live=live, tokens=tokens, **said)
        if keeps:
            self.claim()

    def claim(self, *groups: Claim) -> tuple[str, ...]:
        """Tell all that is asked for; what is still asked for afterwards."""
        self.ask_id += 1
        answer = self.pump.ask_agent(self.name, Claims(ask_id=self.ask_id, cluster=self.name, groups=groups))
        if not isinstance(answer, ClaimsAnswer):
            return ()
        told = tuple(self.kept.get(uid, Claim(uid)) for uid in answer.wanted)
        return self.claim(*told) if told and told != groups else answer.wanted


def fleet(*names: str, servers: int = 1, **config: Any) -> tuple[Pump, list[Agent]]:
    """A fleet of these clusters, all of them admitted."""
    pump = Pump(servers=servers, **config)
    agents = [Agent(name, pump) for name in names]
    pump.members |= {agent.name: agent for agent in agents}
    pump.run(25.0)
    pump.join(*names)
    return pump, agents


def backup_of(pump: Pump) -> MemoryStore:
    place = MemoryStore()
    back_up(pump.store, place, made_ms=AT_MS)
    return place


def restored(
    place: BlobStore,
    before: Pump,
    *,
    nonce: str = "abc",
    servers: int = 1,
    at_ms: int = AT_MS,
    store_format: int = FORMAT,
) -> Pump:
    """A new store from the backup, servers on it, and the same agents, which know nothing of that."""
    manifest, target = read_manifest(place), MemoryStore()
    assert manifest is not None
    state = fold(view(place), nonce)
    lineage = max(f"{at_ms}-{nonce}", f"{int(manifest.lineage.partition('-')[0]) + 1:013d}-{nonce}")
    write(target, state, manifest, lineage, Facts(at_ms, nonce, store_format), term=verify(view(place)).term)
    pump = Pump(servers=servers, store=target)
    pump.now_s = before.now_s
    for agent in before.members.values():
        agent.pump = pump
        agent.due_s = pump.now_s
    pump.members = before.members
    return pump


def kinds(pump: Pump) -> list[str]:
    after = (Restored, Unheld, Adopted, Recreated, Recovered)
    folded = next(iter(pump.folded.values()))
    return [type(one.record).__name__ for one in folded if isinstance(one.record, after)]


def moved(pump: Pump, uid: str, source: Agent, target: Agent) -> str:
    """The group leaves one cluster and runs in the other; its new token."""
    source.gpus_free = [0] * source.nodes
    target.gpus_free = [8] * target.nodes
    pump.run(6.0)
    source.verdict(uid, "Released", token=source.holds.pop())
    pump.run(40.0)
    return target.starts(uid)
