"""Rare chains of events, acted out step by step: what a mixture of faults would bring about once in ten thousand seeds.

A drama only cuts, crashes and asks, as the injector does; when, it learns from the committed records.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from federation.core.events import Accepted, CordonCluster, Declined, SetIntent
from federation.core.records import AnyRecord, ClusterAdmitted, FenceDone, GaveUp, Placed
from tests.world.draw import Focus
from tests.world.history import TokenFacts
from tests.world.members import AgentHost, ClusterHost

if TYPE_CHECKING:
    from tests.world.servers import ServerHost
    from tests.world.world import World

FIRST_S: Final = 90.0
POLL_S: Final = 0.25
LAG_S: Final = 60.0  # how long the lagging server stays behind after the agent's restart
FRESH_DELAY_S: Final = 20.0  # meanwhile desired states from the other servers take this much longer
RESTART_S: Final = 0.2
FOLLOW_POLL_S: Final = 0.02  # often enough to catch a server between `Placed` and `Bound`
MOVE_S: Final = 8.0
CORDONED_S: Final = 60.0
OTHERS_CLOSED_S: Final = 30.0  # until something is submitted and placed


def stage(world: World, rng: random.Random) -> None:
    """Schedule the dramas of this seed, if its focus is one."""
    safety_s = world.setting.safety_s
    match world.setting.focus:
        case Focus.STALE_HOME:
            at_s = FIRST_S
            while at_s < safety_s - 100.0:
                world.scheduler.at(at_s, StaleHome(world, rng).begin)
                at_s += rng.uniform(90.0, 130.0)
        case Focus.UNSEEN_HOME:
            UnseenHome(world, rng).begin()
        case _:
            pass


class _Drama:
    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self._rng = rng
        self._lagging: ServerHost | None = None

    def _note(self, what: str, facts: str) -> None:
        self._world.trace.note(self._world.scheduler.now_s, "drama", what, facts)

    def _after(self, delay_s: float, action: object, *args: object) -> None:
        self._world.scheduler.after(delay_s, action, *args)  # type: ignore[arg-type]

    def _when_followed(self, uid: str, tries: int, then: Callable[[], None]) -> None:
        """A server that does not lead, and has just seen the placement, is cut from the store: for a long time it
        answers from what it knows."""
        followers = [server for server in self._world.servers if server.up and not server.leads]
        self._rng.shuffle(followers)
        for server in followers:
            if not self._world.healed and server.has_unbound_home(uid):
                self._lagging = server
                self._note("lags", f"{server.name} {uid}")
                self._world.network.cut(self._store_ways())
                then()
                return
        if tries and not self._world.healed:
            self._after(FOLLOW_POLL_S, self._when_followed, uid, tries - 1, then)

    def _thaw_follower(self) -> None:
        if self._lagging is not None and not self._world.healed:
            self._world.network.heal(self._store_ways())
        self._lagging = None

    def _store_ways(self) -> list[str]:
        assert self._lagging is not None
        return [f"store>{self._lagging.name}", f"store<{self._lagging.name}"]

    def _restart(self, agent: AgentHost) -> None:
        """A new process asks the servers anew, and the lagging one may answer first."""
        if self._world.healed or agent not in agent.cluster.agents:
            return
        self._note("restart", agent.name)
        self._world.injector.disturb(agent.cluster.name, RESTART_S)
        agent.crash()
        if self._lagging is not None:
            self._world.slow_desired(agent, self._lagging.name, FRESH_DELAY_S, LAG_S)
        self._after(RESTART_S, agent.start)
        self._after(LAG_S, self._thaw_follower)


class StaleHome(_Drama):
    """A group is moved away; its old agent restarts and is told by a lagging server that the group is at home there.

    The server lags since before `Bound`: a token that the desired state shows as bound is never built again anyway.
    """

    def begin(self) -> None:
        """Wait for the next placement that fits the part."""
        self._before_drop = self._rng.random() < 0.25
        self._token: TokenFacts | None = None
        if not self._world.healed:
            self._world.on_committed.append(self._committed)

    def _committed(self, record: AnyRecord) -> None:
        token = self._token
        match record:
            case Placed(uid=uid) if token is None and not self._world.healed:
                home = self._world.history.home(uid)
                if home is not None and home.policy == "StopAndMove" and self._alone(home.cluster) is not None:
                    self._token = home
                    self._after(0.0, self._when_followed, uid, 200, self._move)
            case GaveUp() if token is not None and record.token == token.token:
                self._world.on_committed.remove(self._committed)
                agent = self._alone(token.cluster)
                if self._before_drop and agent is not None:
                    self._after(0.0, self._restart, agent)
                else:
                    self._after(POLL_S, self._when_dropped, self._world.clusters[token.cluster], 400)
            case _:
                pass

    def _alone(self, cluster: str) -> AgentHost | None:
        agents = self._world.clusters[cluster].agents
        return agents[0] if len(agents) == 1 and agents[0].up else None

    def _move(self) -> None:
        """Its agent has it by now; it must go to another cluster."""
        token = self._token
        assert token is not None
        self._note("moves", f"{token.uid} {token.token} from {token.cluster}")
        self._cordon(token, cordoned=True)
        request = SetIntent(token.uid, "move", "drama", f"drama-{token.token}", "olga")
        self._after(MOVE_S, self._world.client.ask, request, _nothing)
        self._after(CORDONED_S, self._cordon_off, token)

    def _cordon(self, token: TokenFacts, *, cordoned: bool) -> None:
        state = "on" if cordoned else "off"
        request = CordonCluster(token.cluster, cordoned, False, "drama", f"drama-{state}-{token.token}", "olga")
        self._world.client.ask(request, _nothing)

    def _cordon_off(self, token: TokenFacts) -> None:
        self._cordon(token, cordoned=False)

    def _when_dropped(self, cluster: ClusterHost, tries: int) -> None:
        """Once nothing in the cluster names the token: only the ledger's `landed` remembers that it was given up."""
        assert self._token is not None
        if not tries or not cluster.agents:
            self._thaw_follower()
        elif self._token.token in self._world.tokens_known_in(cluster):
            self._after(POLL_S, self._when_dropped, cluster, tries - 1)
        else:
            self._after(self._rng.uniform(0.5, 4.0), self._restart, cluster.agents[0])


class UnseenHome(_Drama):
    """A group is placed on a cluster that is cut off at that moment, never hears of it, is fenced and admitted again;
    then its agent restarts, and a lagging server tells it to run what has long moved."""

    def begin(self) -> None:
        """The cluster is kept empty first, so that no give-up of another group protects it. Then the others are closed
        for a while: the fullest cluster comes first, and an empty one last."""
        self._cluster = self._rng.choice(list(self._world.clusters.values()))
        self._unseen = ""
        self._fence_done = False
        opened_s = self._rng.uniform(80.0, 250.0)
        self._cordon(5.0, self._cluster.name, cordoned=True, tries=20)
        self._cordon(opened_s, self._cluster.name, cordoned=False, tries=1)
        for name in self._world.clusters:
            if name != self._cluster.name:
                self._cordon(opened_s, name, cordoned=True, tries=1)
                self._cordon(opened_s + OTHERS_CLOSED_S, name, cordoned=False, tries=1)
        self._world.on_committed.append(self._committed)

    def _cordon(self, delay_s: float, name: str, *, cordoned: bool, tries: int) -> None:
        """Asked again while the cluster has not joined yet."""

        def done(answer: Accepted | Declined) -> None:
            if isinstance(answer, Declined) and tries > 1:
                self._cordon(1.0, name, cordoned=cordoned, tries=tries - 1)

        request_id = f"drama-{name}-{cordoned}-{tries}"
        request = CordonCluster(name, cordoned, drain=False, reason="drama", request_id=request_id, actor="olga")
        self._after(delay_s, self._world.client.ask, request, done)

    def _ways(self) -> list[str]:
        links = ("bus>", "bus<", "https>", "https<")
        return [f"{link}{agent.name}" for agent in self._cluster.agents for link in links]

    def _committed(self, record: AnyRecord) -> None:
        if self._world.healed:
            return
        name = self._cluster.name
        match record:
            case Placed(cluster=cluster, uid=uid) if cluster == name and not self._unseen:
                if self._world.scheduler.now_s > 79.0:
                    self._unseen = uid
                    self._note("unseen", uid)
                    self._cut_ways = self._ways()
                    self._world.network.cut(self._cut_ways)
                    self._after(0.0, self._when_followed, uid, 1_000, lambda: None)
            case FenceDone(cluster=cluster) if cluster == name and self._unseen and not self._fence_done:
                self._fence_done = True
                self._after(self._rng.uniform(3.0, 15.0), self._heal)
            case ClusterAdmitted(cluster=cluster) if cluster == name and self._fence_done:
                self._world.on_committed.remove(self._committed)
                if self._cluster.agents:
                    self._after(self._rng.uniform(0.5, 5.0), self._restart, self._cluster.agents[0])
            case _:
                pass

    def _heal(self) -> None:
        if not self._world.healed:
            self._world.network.heal(self._cut_ways)


def _nothing(answer: Accepted | Declined) -> None:
    del answer
