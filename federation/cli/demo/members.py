"""The demo's three clusters and their uplinks: a LocalFleet whose agents reach bus and server through relays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import muster
from federation.cli.local.commands import NATS, SERVER
from federation.cli.local.fleet import LocalFleet
from federation.cli.local.relay import Relay

PRESET: Final = "demo"  # TTL 6 s, R 1 s, margin of K 2 s, T_undo 12 s
API_PER_S: Final = 1_000.0  # of each agent: simulated API servers stand more than real ones are asked for
UP_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Member:
    """One simulated cluster, as `muster-simkube` is told to make it."""

    name: str
    region: str
    nodes: str
    gpus: int


MEMBERS: Final = (
    Member("eu-h100", "eu-north", "90xH100-80:8,clique=4,rack=8", 720),
    Member("us-a100", "us-east", "80xA100-80:8,clique=1,rack=16", 640),
    Member("ap-mixed", "ap-south", "50xH200-141:8,clique=2,rack=10+80xL4-24:4,rack=20,cpu=64,memory=512", 720),
)
SMALL_MEMBERS: Final = (
    Member("eu-h100", "eu-north", "6xH100-80:8,clique=2", 48),
    Member("us-a100", "us-east", "6xA100-80:8,clique=1", 48),
    Member("ap-mixed", "ap-south", "4xH200-141:8,clique=2+4xL4-24:4", 48),
)
"""A fleet that a test affords; the acts are the same."""


@dataclass(slots=True)
class DemoFleet:
    """Up after `up`; each cluster's network can be cut and healed; nothing runs after `down`."""

    members: tuple[Member, ...]
    local: LocalFleet
    _relays: dict[str, list[Relay]] = field(default_factory=dict)

    @classmethod
    def make(cls, root: Path, members: tuple[Member, ...]) -> DemoFleet:
        """Its folder; starts nothing."""
        names, nodes = [one.name for one in members], [_with_region(one) for one in members]
        return cls(members, LocalFleet.make(root, clusters=names, nodes=nodes, preset=PRESET))

    @property
    def gpus(self) -> int:
        return sum(member.gpus for member in self.members)

    def up(self, say: Callable[[str], None]) -> None:
        """Every process runs, every cluster is Active and known by its region."""
        for member in self.members:
            pair = [Relay(self.local.state.ports[role]) for role in (SERVER, NATS)]
            self._relays[member.name] = pair
            for relay in pair:
                relay.start()
            ports = [relay.port for relay in pair]
            self.local.state.uplinks[member.name] = dict(zip((SERVER, NATS), ports, strict=True))
        self.local.state.api_per_s = API_PER_S
        self.local.up(say, within_s=UP_S)
        with self.local.client() as client:
            for member in self.members:
                labels = {"muster.io/simulated": "true", "region": member.region}
                client.join_cluster(member.name, labels=labels)

    def down(self) -> None:
        self.local.down()
        self._stop_relays()

    def cut(self, cluster: str) -> None:
        """Nothing passes between this cluster's agent and the rest; its API server and kubelets run on."""
        for relay in self._relays[cluster]:
            relay.cut()

    def heal(self, cluster: str) -> None:
        for relay in self._relays[cluster]:
            relay.heal()

    def leave(self) -> None:
        """Let it live on without us: agents start again, straight to bus and server."""
        self.local.state.uplinks.clear()
        for member in self.members:
            self.local.kill(f"agent/{member.name}")
        self.local.up(within_s=UP_S)
        self._stop_relays()

    def client(self) -> muster.Client:
        return self.local.client()

    def run_log(self, cluster: str) -> Path:
        return self.local.folder.cluster(cluster) / "runlog.jsonl"

    def _stop_relays(self) -> None:
        for relay in (relay for pair in self._relays.values() for relay in pair):
            relay.stop()
        self._relays.clear()


def _with_region(member: Member) -> str:
    """Every node of the cluster is in its region."""
    return "+".join(f"{part},region={member.region},zone={member.region}-1" for part in member.nodes.split("+"))
