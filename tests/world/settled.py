"""L2 and L4: once faults stop, journal, ledgers, API servers and run logs agree, and whoever still waits has to.

Two looks, a minute apart: what is wrong in both has had time to be put right and was not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tests.world.draw import GPUS_PER_NODE, NODES_PER_CLIQUE, GroupShape, Setting
from tests.world.history import GroupFacts
from tests.world.members import gpus_of
from tests.world.violation import ViolationError

if TYPE_CHECKING:
    from tests.world.members import ClusterHost
    from tests.world.world import World

LOOKS_APART_S: Final = 60.0
TOKEN_LABEL: Final = "muster.io/token"

Wrong = tuple[str, str, str]  # what, where, whom


class SettledChecker:
    """Looks at the whole fleet twice near the end and judges what both looks saw."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._shapes = {shape.name: shape for shape in world.setting.groups}
        self._looks: list[set[Wrong]] = []

    def looks_at(self, setting: Setting) -> tuple[float, float]:
        return setting.end_s - LOOKS_APART_S, setting.end_s

    def look(self) -> None:
        wrong: set[Wrong] = set()
        for cluster in self._world.clusters.values():
            wrong |= self._cluster(cluster)
        wrong |= self._servers()
        wrong |= self._waiting()
        self._looks.append(wrong)

    def judge(self) -> None:
        """L2 or L4 is broken by what every look saw."""
        lasting = sorted(set.intersection(*self._looks))
        if lasting:
            what, where, whom = lasting[0]
            checker = "L2" if what.startswith("waits") else "L4"
            others = f" (and {len(lasting) - 1} more: {lasting[1:4]})" if len(lasting) > 1 else ""
            raise ViolationError(checker, f"after the heal, twice: {what}: {where} {whom}{others}", (whom, where))

    def _servers(self) -> set[Wrong]:
        total = len(self._world.history.records)
        wrong = {("replica behind", s.name, "") for s in self._world.servers if s.folded_count < total}
        if sum(server.leads for server in self._world.servers) != 1:
            wrong.add(("not exactly one leader", "", ""))
        wrong |= {("person unanswered", "", request_id) for request_id in self._world.client.unanswered}
        return wrong

    def _cluster(self, cluster: ClusterHost) -> set[Wrong]:
        history, name = self._world.history, cluster.name
        facts = history.clusters.get(name)
        if facts is None:
            return {("never joined", name, "")}
        homes = set(facts.homes)
        running = set(self._world.runs.live_tokens(name))
        pods = {token for pod in self._pods(cluster) if (token := pod["metadata"].get("labels", {}).get(TOKEN_LABEL))}
        wrong = {("not admitted", name, "")} if facts.fenced else set()
        wrong |= {("container without home", name, token) for token in running - homes}
        wrong |= {("pod without home", name, token) for token in pods - homes}
        wrong |= {("resize not answered", name, token) for token in homes if history.tokens[token].resizing}
        wrong |= {("home without pods", name, token) for token in homes - pods}
        wrong |= {("kept though not home", name, token) for token in self._world.tokens_known_in(cluster) - homes}
        return wrong

    def _pods(self, cluster: ClusterHost) -> list[Any]:
        return [pod for _, pod in cluster.api.store.each("pods")]

    # --- L2 ---

    def _waiting(self) -> set[Wrong]:
        wrong: set[Wrong] = set()
        free = {cluster.name: self._free(cluster) for cluster in self._world.clusters.values()}
        for facts in self._world.history.groups.values():
            if facts.home is not None or facts.outcome or facts.intent in {"cancel", "suspend"}:
                continue
            shape = self._shapes[facts.spread or facts.name]
            for name in sorted(free):
                waits = self._world.failing.waits_for(facts.uid, name, self._world.scheduler.now_s)
                if not facts.spread and not waits and self._may(name, shape) and fits(shape, free[name]):
                    wrong.add(("waits though it fits", name, facts.uid))
            wrong |= self._unexplained(facts)
        return wrong

    def _may(self, cluster: str, shape: GroupShape) -> bool:
        facts = self._world.history.clusters[cluster]
        region = self._world.clusters[cluster].shape.region
        tripped = any(server.leads and server.finds_failing(cluster) for server in self._world.servers)
        failing = tripped and self._world.failing.may_be_tripped(cluster)
        return not (facts.fenced or facts.cordoned or failing) and shape.region in {"", region}

    def _unexplained(self, facts: GroupFacts) -> set[Wrong]:
        for server in self._world.servers:
            if server.leads and not server.explains(facts.uid):
                return {("waits without a reason", server.name, facts.uid)}
        return set()

    def _free(self, cluster: ClusterHost) -> list[int]:
        """Free GPUs per node in name order, by the API server's pods. A gang keeps the room of its members that have
        ended until it ends itself: it is released whole."""
        free = [GPUS_PER_NODE] * cluster.shape.nodes
        facts = self._world.history.clusters.get(cluster.name)
        homes = set(facts.homes) if facts is not None else set()
        for pod in self._pods(cluster):
            node = pod["spec"].get("nodeName")
            ended = (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}
            if node and (not ended or pod["metadata"].get("labels", {}).get(TOKEN_LABEL) in homes):
                free[int(node.rsplit("-n", 1)[1])] -= gpus_of(pod)
        return free


def fits(shape: GroupShape, free: list[int]) -> bool:
    """Whether the group has room on nodes with these free GPUs, within its level."""
    size = {"": len(free), "clique": NODES_PER_CLIQUE, "host": 1}[shape.level]
    domains = [free[start : start + size] for start in range(0, len(free), size)]
    pods = shape.min_count if shape.elastic else shape.pods
    return any(sum(max(gpus, 0) // shape.gpus for gpus in domain) >= pods for domain in domains)
