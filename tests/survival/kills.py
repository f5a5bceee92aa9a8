"""One run of kills: submissions go on while the server, an agent at each of its failpoints, and the bus are killed."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import muster
from cluster_agents.failpoints import ENVIRONMENT, Failpoint
from federation.cli.local.commands import NATS, SERVER
from federation.cli.local.fleet import LocalFleet
from muster.retry import RetryRule
from tests.survival.books import Promise, Verdict, compare
from tests.survival.fleet import CLUSTERS, fleet_of_three, run_log, wait_until

RUN_S: Final = (2, 5)  # what a pod runs: long enough that killed agents find their gangs still running
SIZES: Final = (1, 1, 1, 2, 2, 3, 4, 6)  # pods
GPUS: Final = (1, 2, 4, 8)
DONE_S: Final = 600.0
FAILPOINT_S: Final = 60.0  # an agent that meets no such moment in this time had no work; the run says so


@dataclass(frozen=True, slots=True)
class Size:
    """How large a run is."""

    groups: int
    server_kills: int
    bus_away_s: float


SMALL: Final = Size(groups=120, server_kills=2, bus_away_s=6.0)
FULL: Final = Size(groups=1_000, server_kills=8, bus_away_s=30.0)


@dataclass(slots=True)
class Outcome:
    seed: int
    verdict: Verdict
    server_kills: int = 0
    agent_kills: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(slots=True)
class Submitter:
    """Submits all groups, each until it was acknowledged, whatever is killed meanwhile."""

    fleet: LocalFleet
    rng: random.Random
    count: int
    promises: list[Promise] = field(default_factory=list)
    failure: BaseException | None = None

    def run(self) -> None:
        try:
            with muster.Client(self.fleet.server_url, self.fleet.token, retry=RetryRule(60)) as client:
                for number in range(self.count):
                    self._one(client, number)
        except BaseException as error:  # noqa: BLE001 - handed to the main thread
            self.failure = error

    def _one(self, client: muster.Client, number: int) -> None:
        pods = self.rng.choice(SIZES)
        name = f"g-{number:04d}"
        uid = client.submit(manifest(name, pods, self.rng.choice(GPUS), self.rng.randint(*RUN_S)), request_id=name).uid
        self.promises.append(Promise(uid, name, pods))


def manifest(name: str, pods: int, gpus: int, run_s: int) -> dict[str, Any]:
    container = {"name": "main", "image": "train", "resources": {"limits": {"nvidia.com/gpu": gpus}}}
    template = {
        "metadata": {"annotations": {"simkube/run-seconds": str(run_s)}},
        "spec": {"restartPolicy": "Never", "containers": [container]},
    }
    return {"name": name, "grace_s": 2, "roles": [{"name": "worker", "count": pods, "template": template}]}


def run_kills(root: Path, seed: int, size: Size) -> Outcome:
    """The whole run; its verdict is for the caller to judge."""
    began_s = time.monotonic()
    rng = random.Random(seed)
    with fleet_of_three(root) as (fleet, _):
        submitter = Submitter(fleet, random.Random(seed + 1), size.groups)
        thread = threading.Thread(target=submitter.run, name="submitter")
        thread.start()
        outcome = Outcome(seed, Verdict())
        _kill_server(fleet, rng, outcome, size.server_kills // 2)
        _kill_agents(fleet, rng, outcome)
        _stop_bus(fleet, size.bus_away_s)
        _kill_server(fleet, rng, outcome, size.server_kills - size.server_kills // 2)
        thread.join()
        if submitter.failure is not None:
            raise submitter.failure
        with fleet.client() as client:
            wait_until(lambda: not unfinished(client), f"all {size.groups} groups to end", DONE_S)
            wait_until(lambda: not containers_live(fleet), "all containers to end", 60)
            outcome.verdict = compare(submitter.promises, client, run_log(fleet))
    outcome.seconds = time.monotonic() - began_s
    return outcome


def unfinished(client: muster.Client) -> bool:
    """Whether any group has not ended; False only when a server says so."""
    try:
        phases = ("Pending", "Placed", "Binding", "Bound", "Running", "Evicting")
        return any(client.list_groups(phase=phase, limit=1).items for phase in phases)
    except muster.UnavailableError:
        return True


def containers_live(fleet: LocalFleet) -> bool:
    entries = run_log(fleet)
    return sum(entry.event == "started" for entry in entries) != sum(entry.event == "ended" for entry in entries)


def _kill_server(fleet: LocalFleet, rng: random.Random, outcome: Outcome, times: int) -> None:
    for _ in range(times):
        time.sleep(rng.uniform(0.5, 4.0))
        fleet.respawn(SERVER)
        outcome.server_kills += 1
    wait_until(fleet.led, "the server to lead again", 60)


def _kill_agents(fleet: LocalFleet, rng: random.Random, outcome: Outcome) -> None:
    """Each failpoint once, on clusters in turn; the agent is started again when the failpoint has killed it."""
    for index, point in enumerate(Failpoint):
        role = f"agent/{CLUSTERS[index % len(CLUSTERS)]}"
        nth = rng.randint(1, 3) if point is Failpoint.AGENT_AFTER_BINDING else 1
        fleet.respawn(role, {ENVIRONMENT: f"{point.value}:{nth}"})
        try:
            wait_until(lambda role=role: not fleet.alive(role), f"{point.value} to be reached", FAILPOINT_S)  # type: ignore[misc]
            outcome.agent_kills.append(point.value)
        finally:
            fleet.respawn(role)


def _stop_bus(fleet: LocalFleet, away_s: float) -> None:
    fleet.kill(NATS)
    time.sleep(away_s)
    fleet.start(NATS)
