"""What one seed decides before anything runs: the fleet, the weather, the work and the strength of every fault.

Each concern draws from its own stream, so that a change of one does not shuffle the others. No behaviour here.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from enum import StrEnum, unique
from typing import Final

from federation.protocol.lease import Timings
from storage.election import JournalTimings

GROUPS: Final = 100
SERVERS: Final = 3
ELASTIC_EVERY: Final = 5  # one in so many groups has pods to give and to take, beside those that chance gives some
SPREAD_EVERY: Final = 7  # one in so many is divided over clusters
CLUSTERS_MIN: Final = 5
CLUSTERS_MAX: Final = 12
GPUS_PER_NODE: Final = 8
NODES_PER_CLIQUE: Final = 4
SAFETY_SHARE: Final = 0.7  # of the minutes: faults on; then heal
LIVENESS_S_MIN: Final = 240.0  # W + K of the longest grace, re-admission and two looks a minute apart fit in
CLOCK_ERROR_MAX: Final = 0.015  # within A1 (< 2 %)
FOREVER_S: Final = 100_000
RESTORE_SHARE: Final = 0.25  # of the seeds that are no dramas
FAILING_SHARE: Final = 0.25  # of them too: with a cluster and groups that fail whatever is done
POISON_MAX: Final = 3
EARLY_SHARE: Final = 0.3  # of the faults' time: later, nothing would come of it within the minutes
AGAIN_SHARE: Final = 0.3  # of the restores


def stream(seed: int, concern: str) -> random.Random:
    """An independent stream of randomness; the same for the same seed everywhere (text seeds are hashed by SHA-512)."""
    return random.Random(f"{seed}/{concern}")


@unique
class Focus(StrEnum):
    """A swarm: most seeds make one class of faults frequent, which mixtures alone would rarely do."""

    MIXED = "mixed"
    CALM = "calm"
    LOST_CLUSTERS = "lost-clusters"
    ONE_WAY = "one-way"
    SERVERS = "servers"
    STORE = "store"
    AGENTS = "agents"
    TWO_AGENTS = "two-agents"
    APISERVER = "apiserver"
    NODES = "nodes"
    REPORTS = "reports"
    OPERATOR = "operator"
    LAG = "lag"
    STALLS = "stalls"
    STALE_HOME = "stale-home"
    UNSEEN_HOME = "unseen-home"


@unique
class Fault(StrEnum):
    """What the injector can do. The value is the key in the JSON report."""

    CUT_CLUSTER = "cut-cluster"
    CUT_AND_RESTARTS = "cut-and-restarts"
    STALL_AND_CUT = "stall-and-cut"
    CUT_BUS = "cut-bus"
    CUT_BUS_ONE_WAY = "cut-bus-one-way"
    CUT_HTTPS = "cut-https"
    CUT_LEASE_REPLIES = "cut-replies"
    CUT_API = "cut-api"
    CUT_API_ONE_WAY = "cut-api-one-way"
    CUT_STORE = "cut-store"
    CUT_NODE = "cut-node"
    BUS_OUTAGE = "bus-outage"
    STORE_OUTAGE = "store-outage"
    SLOW_STORE = "slow-store"
    CRASH_SERVER = "crash-server"
    CRASH_AGENT = "crash-agent"
    CRASH_API = "crash-api"
    CRASH_NODE = "crash-node"
    CRASH_CLUSTER = "crash-cluster"
    PAUSE_SERVER = "pause-server"
    PAUSE_AGENT = "pause-agent"
    SECOND_AGENT = "second-agent"
    API_ERRORS = "api-errors"
    API_LOST_REPLIES = "api-lost-replies"
    FREEZE_WATCH = "freeze-watch"
    COMPACT_WATCH = "compact-watch"
    FOREIGN_PODS = "foreign-pods"
    DELETE_PODS = "delete-pods"
    CORDON = "cordon"
    DRAIN = "drain"
    CANCEL = "cancel"
    MOVE = "move"
    SUSPEND = "suspend"


# Weight of each fault in a mixed seed; a focus multiplies some of them.
WEIGHTS: Final[dict[Fault, float]] = {
    Fault.CUT_CLUSTER: 3,
    Fault.CUT_AND_RESTARTS: 2,
    Fault.STALL_AND_CUT: 2,
    Fault.CUT_BUS: 2,
    Fault.CUT_BUS_ONE_WAY: 2,
    Fault.CUT_HTTPS: 1,
    Fault.CUT_LEASE_REPLIES: 2,
    Fault.CUT_API: 2,
    Fault.CUT_API_ONE_WAY: 2,
    Fault.CUT_STORE: 2,
    Fault.CUT_NODE: 2,
    Fault.BUS_OUTAGE: 0.5,
    Fault.STORE_OUTAGE: 0.5,
    Fault.SLOW_STORE: 1,
    Fault.CRASH_SERVER: 2,
    Fault.CRASH_AGENT: 3,
    Fault.CRASH_API: 1,
    Fault.CRASH_NODE: 2,
    Fault.CRASH_CLUSTER: 0.5,
    Fault.PAUSE_SERVER: 2,
    Fault.PAUSE_AGENT: 2,
    Fault.SECOND_AGENT: 2,
    Fault.API_ERRORS: 3,
    Fault.API_LOST_REPLIES: 3,
    Fault.FREEZE_WATCH: 1,
    Fault.COMPACT_WATCH: 1,
    Fault.FOREIGN_PODS: 1,
    Fault.DELETE_PODS: 1,
    Fault.CORDON: 1,
    Fault.DRAIN: 1,
    Fault.CANCEL: 4,
    Fault.MOVE: 2,
    Fault.SUSPEND: 1,
}

FOCUSED: Final[dict[Focus, tuple[Fault, ...]]] = {
    Focus.MIXED: (),
    Focus.CALM: (),
    Focus.LOST_CLUSTERS: (Fault.CUT_CLUSTER, Fault.CUT_AND_RESTARTS, Fault.CRASH_AGENT, Fault.PAUSE_AGENT),
    Focus.ONE_WAY: (Fault.CUT_LEASE_REPLIES, Fault.CUT_BUS_ONE_WAY, Fault.CUT_API_ONE_WAY),
    Focus.SERVERS: (Fault.CRASH_SERVER, Fault.PAUSE_SERVER, Fault.CUT_STORE, Fault.SLOW_STORE, Fault.CUT_CLUSTER),
    Focus.STORE: (Fault.CUT_STORE, Fault.STORE_OUTAGE, Fault.SLOW_STORE, Fault.CUT_CLUSTER),
    Focus.AGENTS: (Fault.CRASH_AGENT, Fault.PAUSE_AGENT, Fault.CUT_API, Fault.CUT_LEASE_REPLIES, Fault.MOVE),
    Focus.TWO_AGENTS: (Fault.SECOND_AGENT, Fault.PAUSE_AGENT, Fault.CUT_API, Fault.MOVE),
    Focus.APISERVER: (Fault.API_ERRORS, Fault.API_LOST_REPLIES, Fault.CRASH_API, Fault.FREEZE_WATCH, Fault.MOVE),
    Focus.NODES: (Fault.CUT_NODE, Fault.CRASH_NODE, Fault.FOREIGN_PODS, Fault.DELETE_PODS, Fault.CUT_CLUSTER),
    Focus.REPORTS: (Fault.CUT_BUS, Fault.BUS_OUTAGE, Fault.CRASH_AGENT, Fault.MOVE),
    Focus.STALLS: (Fault.STALL_AND_CUT, Fault.CRASH_AGENT),
    Focus.STALE_HOME: (),
    Focus.UNSEEN_HOME: (),
    Focus.LAG: (Fault.SLOW_STORE, Fault.CRASH_AGENT, Fault.CUT_CLUSTER, Fault.MOVE, Fault.CUT_LEASE_REPLIES),
    Focus.OPERATOR: (Fault.CORDON, Fault.DRAIN, Fault.MOVE, Fault.SUSPEND, Fault.CRASH_CLUSTER, Fault.CANCEL),
}

FOCUS_FACTOR: Final = 6.0
DRAMAS: Final = frozenset({Focus.STALE_HOME, Focus.UNSEEN_HOME})  # acted out step by step, beside few other faults


@dataclass(frozen=True, slots=True)
class Weather:
    """Strengths of what happens to every message and store operation."""

    bus_delay_s: float  # means; delays are exponential
    https_delay_s: float
    api_delay_s: float
    watch_delay_s: float
    store_delay_s: float
    loss: float
    repeat: float
    reply_lost: float  # a store write is applied and its answer lost
    not_applied: float  # a store write is lost before the store, outcome unknown
    lands_late: float  # a store write is answered "unknown" and lands afterwards
    late_s: float  # how much later at most
    old_reports: float  # chance that a cut connection's reports are delivered after it heals


CALM: Final = Weather(
    bus_delay_s=0.02,
    https_delay_s=0.02,
    api_delay_s=0.01,
    watch_delay_s=0.02,
    store_delay_s=0.01,
    loss=0.0,
    repeat=0.0,
    reply_lost=0.0,
    not_applied=0.0,
    lands_late=0.0,
    late_s=0.0,
    old_reports=0.0,
)


@dataclass(frozen=True, slots=True)
class ClusterShape:
    name: str
    product: str
    nodes: int
    region: str
    guarded: bool  # fence strength `guard`; else the operator accepted `unguarded` or not
    accept_unguarded: bool
    lease_class: str


@dataclass(frozen=True, slots=True)
class GroupShape:
    """One group to be submitted at `at_s`."""

    name: str
    at_s: float
    pods: int
    min_count: int
    gpus: int
    priority: int
    grace_s: int
    run_s: int
    fail_after_s: int  # 0: does not fail
    policy: str
    disruption: str
    level: str
    workload: str
    region: str  # "" any
    elastic: bool = False  # may start with as few pods as `min_count`
    spread: bool = False  # its pods are replicas, in one to three clusters, at least `min_count` in each
    poison: bool = False  # every API server refuses its pods


@dataclass(frozen=True, slots=True)
class ResizeShape:
    """Somebody gives an elastic group that runs another size; which, and which group, are shares of what there is."""

    at_s: float
    group: float
    size: float


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """The store is lost and the fleet goes on from a backup. The same backup may be restored again later."""

    backup_at_s: float
    lost_after_s: float  # after the backup: what came meanwhile is not in it
    down_s: float  # until the servers run again; agents count their leases meanwhile
    again_after_s: float  # after the restore the same happens once more, from the same backup; 0: it does not


@dataclass(frozen=True, slots=True)
class FailingPlan:
    """From then on this cluster refuses whatever it gets, and no cluster takes these groups."""

    cluster: str
    from_s: float
    poison: frozenset[str]


@unique
class Restores(StrEnum):
    """Which seeds have a restore."""

    DRAWN = "drawn"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Setting:
    """Everything drawn for one seed."""

    seed: int
    focus: Focus
    minutes: float
    safety_s: float
    end_s: float
    timings: Timings
    journal_timings: JournalTimings
    node_heartbeat_s: float
    weather: Weather
    clusters: tuple[ClusterShape, ...]
    groups: tuple[GroupShape, ...]
    faults_expected: float
    resizes: tuple[ResizeShape, ...]
    repeat_submit: float  # chance that the client repeats an acknowledged submission
    restore: RestorePlan | None
    failing: FailingPlan | None


def draw(seed: int, minutes: float, restores: Restores = Restores.DRAWN) -> Setting:
    """The setting of this seed; equal arguments, equal setting."""
    rng = stream(seed, "setting")
    focus = rng.choice(list(Focus))
    end_s = minutes * 60.0
    safety_s = min(end_s * SAFETY_SHARE, end_s - LIVENESS_S_MIN)
    assert safety_s > 0.0, f"{minutes} minutes leave no time for faults"
    clusters = _clusters(rng)
    groups = [_group(stream(seed, f"group-{index}"), index, safety_s, small=focus in DRAMAS) for index in range(GROUPS)]
    failing = _failing(stream(seed, "failing"), clusters, groups, safety_s) if focus not in DRAMAS else None
    faults = 0.0 if focus is Focus.CALM else rng.uniform(3.0, 6.0) * len(clusters) * safety_s / 630.0
    return Setting(
        seed=seed,
        focus=focus,
        minutes=minutes,
        safety_s=safety_s,
        end_s=end_s,
        timings=_timings(rng.choice((30.0, 60.0)), stream(seed, "periods"), seldom=focus not in DRAMAS),
        journal_timings=JournalTimings(poll_s=stream(seed, "journal").choice((1.0, 5.0, 5.0))),
        node_heartbeat_s=stream(seed, "nodes").choice((30.0, 60.0, 60.0)),
        weather=_weather(rng, focus),
        clusters=clusters,
        groups=tuple(replace(one, poison=failing is not None and one.name in failing.poison) for one in groups),
        faults_expected=faults / 3.0 if focus in DRAMAS else faults,
        repeat_submit=rng.choice((0.0, 0.1, 0.5)),
        resizes=_resizes(stream(seed, "resizes"), safety_s),
        restore=_restore(stream(seed, "restore"), safety_s, restores) if focus not in DRAMAS else None,
        failing=failing,
    )


def _restore(rng: random.Random, safety_s: float, restores: Restores) -> RestorePlan | None:
    """From a stream of its own, so that seeds without a restore do what they would do if there were none."""
    drawn = rng.random() < RESTORE_SHARE
    if restores is Restores.NEVER or not (drawn or restores is Restores.ALWAYS):
        return None
    return RestorePlan(
        backup_at_s=rng.uniform(0.1, 0.6) * safety_s,
        lost_after_s=_log_uniform(rng, 2.0, 0.3 * safety_s),
        down_s=rng.choice((1.0, rng.uniform(1.0, 30.0), rng.uniform(30.0, 150.0))),
        again_after_s=rng.uniform(20.0, 150.0) if rng.random() < AGAIN_SHARE else 0.0,
    )


def _failing(
    rng: random.Random, clusters: tuple[ClusterShape, ...], groups: list[GroupShape], safety_s: float
) -> FailingPlan | None:
    """Seeds without do what they would do if there were none."""
    if rng.random() >= FAILING_SHARE:
        return None
    early = [
        one.name for one in groups if one.at_s < EARLY_SHARE * safety_s and one.workload == "pods" and not one.spread
    ]
    return FailingPlan(
        cluster=rng.choice(clusters).name,
        from_s=rng.uniform(40.0, EARLY_SHARE * safety_s),
        poison=frozenset(rng.sample(early, min(len(early), rng.randint(1, POISON_MAX)))),
    )


def _timings(ttl_s: float, rng: random.Random, *, seldom: bool) -> Timings:
    """As often as in the presets, or a few times less. No promise may rest on how often somebody looks: a fleet that
    looks seldom depends on doorbells and hints, which get lost, and knows things later. It also costs less. Dramas are
    timed for the presets' periods."""
    if not seldom:
        return Timings(ttl_s=ttl_s)
    heartbeat_s = rng.choice((5.0, 10.0, 10.0))
    return Timings(
        ttl_s=ttl_s,
        heartbeat_s=heartbeat_s,
        silent_after_s=3.0 * heartbeat_s,
        view_stale_s=6.0 * heartbeat_s,
        desired_poll_s=rng.choice((10.0, 30.0, 30.0)),
        local_lease_s=rng.choice((10.0, 20.0, 20.0)),
        lease_read_s=rng.choice((5.0, 10.0, 10.0)),
    )


def _resizes(rng: random.Random, safety_s: float) -> tuple[ResizeShape, ...]:
    count = rng.choice((0, 40, 150))
    return tuple(ResizeShape(rng.uniform(60.0, safety_s), rng.random(), rng.random()) for _ in range(count))


def _log_uniform(rng: random.Random, low: float, high: float) -> float:
    return float(low * (high / low) ** rng.random())


def _weather(rng: random.Random, focus: Focus) -> Weather:
    rough = 1.0 if focus is Focus.STORE else 0.3
    calm = focus is Focus.CALM
    return Weather(
        bus_delay_s=_log_uniform(rng, 0.01, 5.0),
        https_delay_s=_log_uniform(rng, 0.01, 2.0),
        api_delay_s=_log_uniform(rng, 0.002, 0.5),
        watch_delay_s=_log_uniform(rng, 0.01, 2.0),
        store_delay_s=_log_uniform(rng, 0.003, 0.5),
        loss=0.0 if calm else rng.choice((0.0, 0.02, 0.2)),
        repeat=0.0 if calm else rng.choice((0.0, 0.05, 0.3)),
        reply_lost=0.0 if calm else rough * rng.choice((0.0, 0.01, 0.1)),
        not_applied=0.0 if calm else rough * rng.choice((0.0, 0.01, 0.1)),
        lands_late=0.0 if calm else rough * rng.choice((0.0, 0.01, 0.1)),
        late_s=_log_uniform(rng, 0.5, 20.0),
        old_reports=rng.choice((0.0, 0.5, 1.0)),
    )


def _clusters(rng: random.Random) -> tuple[ClusterShape, ...]:
    count = min(rng.randint(CLUSTERS_MIN, CLUSTERS_MAX), rng.randint(CLUSTERS_MIN, CLUSTERS_MAX))
    products = ("NVIDIA-A100-SXM4-80GB", "NVIDIA-H100-80GB-HBM3")
    shapes = []
    for index in range(count):
        guarded = rng.random() < 0.85
        shapes.append(
            ClusterShape(
                name=f"c-{index + 1}",
                product=rng.choice(products),
                nodes=rng.randint(4, 9),
                region=rng.choice(("eu", "us")),
                guarded=guarded,
                accept_unguarded=not guarded and rng.random() < 0.3,
                lease_class="fast",
            )
        )
    return tuple(shapes)


def _group(rng: random.Random, index: int, safety_s: float, *, small: bool) -> GroupShape:
    """`small`: so that there is always room, and nothing wrong stays hidden behind a refusal."""
    pods = rng.choices((1, 2, 3, 4, 6, 8), (7, 6, 4, 3, 1, 1))[0]
    gpus = rng.choices((1, 2, 4, 8), (3, 2, 2, 4))[0]
    if small:
        pods, gpus = min(pods, 2), 1
    level = rng.choices(("", "clique", "host"), (8, 2, 1))[0]
    if level == "host":
        pods, gpus = min(pods, 4), min(gpus, 2)
    fails = rng.random() < 0.08
    shape = GroupShape(
        name=f"train-{index:03d}",
        at_s=20.0 + rng.random() ** 1.5 * safety_s * 0.85,
        pods=pods,
        min_count=pods if rng.random() < 0.7 else rng.randint(1, pods),
        gpus=gpus,
        priority=rng.choice((0, 0, 0, 5, 10)),
        grace_s=rng.choices((0, 5, 30, 60), (1, 3, 5, 1))[0],
        run_s=rng.choices((rng.randint(5, 60), rng.randint(60, 400), FOREVER_S), (3, 4, 3))[0],
        fail_after_s=rng.randint(3, 120) if fails else 0,
        policy=rng.choices(("StopAndMove", "HoldInPlace", "MoveAnyway"), (7, 2, 1))[0],
        disruption=rng.choice(("all", "all", "single")),
        level=level,
        workload="job" if rng.random() < 0.15 else "pods",
        region=rng.choice(("", "", "", "eu", "us")),
    )
    if index % ELASTIC_EVERY == 0 and shape.workload == "pods" and not small:
        shape = replace(shape, pods=max(4, pods), min_count=1 + index // ELASTIC_EVERY % 3)
    if index % SPREAD_EVERY == 1 and shape.workload == "pods" and not small:
        return replace(shape, pods=max(4, pods), min_count=1 + index // SPREAD_EVERY % 2, spread=True)
    return replace(shape, elastic=shape.workload == "pods" and shape.min_count < shape.pods and index % 3 > 0)
