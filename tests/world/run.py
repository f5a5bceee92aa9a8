"""Runs seeds and sums up what they showed. No rule of the world lives here."""

from __future__ import annotations

import gc
import hashlib
import multiprocessing
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.world.draw import Restores
from tests.world.mutants import planted
from tests.world.violation import ViolationError
from tests.world.world import World

SEEDS_FILE: Final = Path(__file__).with_name("seeds.txt")
TRACE_LINES_SHOWN: Final = 120
TRACES_SHOWN_MAX: Final = 10


@dataclass(slots=True)
class SeedResult:
    """What one seed showed."""

    seed: int
    focus: str
    checker: str = ""  # "" when all promises held
    why: str = ""
    story: list[str] = field(default_factory=list)
    trace_hash: str = ""
    simulated_s: float = 0.0
    cpu_s: float = 0.0
    actions: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)


def run_seed(
    seed: int, minutes: float, mutant: str = "", restores: Restores = Restores.DRAWN, *, story: bool = True
) -> SeedResult:
    """Run one seed; a failing one is run again, with its whole trace kept, to tell its story."""
    result, words = _once(seed, minutes, mutant, restores, keep_trace=False)
    if result.checker and story:
        cpu_s = result.cpu_s
        result, words = _once(seed, minutes, mutant, restores, keep_trace=True, tell=words)
        result.cpu_s = cpu_s
    return result


def _once(
    seed: int, minutes: float, mutant: str, restores: Restores, *, keep_trace: bool, tell: tuple[str, ...] = ()
) -> tuple[SeedResult, tuple[str, ...]]:
    started_s = time.process_time()
    words: tuple[str, ...] = ()
    with planted(mutant), _no_collections():
        world = World(seed, minutes, keep_trace=keep_trace, restores=restores)
        result = SeedResult(seed, world.setting.focus.value)
        try:
            world.run()
        except ViolationError as violation:
            words = violation.words
            result.checker, result.why = violation.checker, violation.why
            if keep_trace:
                result.story = _story(world, violation)
    result.trace_hash = world.trace.digest()
    result.simulated_s = world.scheduler.now_s
    result.cpu_s = time.process_time() - started_s
    result.actions = world.scheduler.actions_run
    result.faults = dict(sorted(world.injector.counts.items()))
    result.groups = _phases(world)
    result.totals = {
        "submitted": len(world.history.groups),
        "acknowledged": len(world.acks.acks),
        "records": len(world.history.records),
        "placements": len(world.history.tokens),
        "resizes": world.history.resizes,
        "fences": world.history.fences,
        "moves": world.history.moves,
        "container_starts": world.runs.starts_count,
        "unknown_store_outcomes": world.store.unknown_count,
        "server_starts": sum(server.incarnation for server in world.servers),
        "restores": world.restorer.restores_count,
        "groups_made_again": world.restorer.recreated_count,
        "acknowledgements_lost": len(world.acks.lost),
        "clusters_removed": world.leaving.count,
    }
    return result, words


@contextmanager
def _no_collections() -> Iterator[None]:
    """Cyclic garbage is collected between seeds: one seed makes little, and a collection visits all that lives."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def _phases(world: World) -> dict[str, int]:
    phases = Counter(
        group.outcome or ("Placed" if group.home else "Suspended" if group.intent == "suspend" else "Pending")
        for group in world.history.groups.values()
    )
    return dict(sorted(phases.items()))


def _story(world: World, violation: ViolationError) -> list[str]:
    """For people: the group's records, the lines that name it, and the last lines of all."""
    lines = [f"--- {violation.checker}: {violation.why}", f"--- setting: {_setting(world)}"]
    if violation.__cause__ is not None:
        lines += traceback.format_exception(violation.__cause__)
    for uid in [word for word in violation.words if word in world.history.groups]:
        lines += [f"--- records of {uid}", *world.history.story(uid)]
    if violation.words:
        lines += [f"--- trace about {violation.words}", *world.trace.about(violation.words)[-TRACE_LINES_SHOWN:]]
    return [*lines, "--- end of trace", *world.trace.last(TRACE_LINES_SHOWN)]


def _setting(world: World) -> str:
    setting = world.setting
    return f"focus={setting.focus} ttl={setting.timings.ttl_s} clusters={len(setting.clusters)} {setting.weather}"


def run_seeds(
    seeds: Iterable[int],
    minutes: float,
    mutant: str,
    jobs: int,
    restores: Restores = Restores.DRAWN,
    *,
    story: bool = True,
) -> Iterator[SeedResult]:
    """Results in the order of `seeds`, whatever `jobs` is."""
    run = partial(run_seed, minutes=minutes, mutant=mutant, restores=restores, story=story)
    if jobs <= 1:
        yield from map(run, seeds)
        return
    with multiprocessing.Pool(jobs) as pool:
        yield from pool.imap(run, seeds)


def summary(results: list[SeedResult]) -> dict[str, Any]:
    """The report of a run, ready for JSON."""
    cpu_s = sum(result.cpu_s for result in results)
    hours = sum(result.simulated_s for result in results) / 3_600.0
    failed = [result for result in results if result.checker]
    totals: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    groups: Counter[str] = Counter()
    for result in results:
        totals.update(result.totals)
        faults.update(result.faults)
        groups.update(result.groups)
    return {
        "seeds": len(results),
        "violations": [{"seed": r.seed, "focus": r.focus, "checker": r.checker, "why": r.why} for r in failed],
        "simulated_hours": round(hours, 2),
        "cpu_s": round(cpu_s, 2),
        "simulated_hours_per_cpu_minute": round(hours / (cpu_s / 60.0), 2) if cpu_s else 0.0,
        "actions": sum(result.actions for result in results),
        **dict(sorted(totals.items())),
        "groups": dict(sorted(groups.items())),
        "faults": dict(sorted(faults.items())),
        **_traces(results),
    }


def _traces(results: list[SeedResult]) -> dict[str, Any]:
    """One hash over all, and one per seed where they are few enough to read."""
    together = hashlib.sha256("".join(result.trace_hash for result in results).encode()).hexdigest()
    each = {str(result.seed): result.trace_hash for result in results} if len(results) <= TRACES_SHOWN_MAX else {}
    return {"trace_hash": together, "traces": each}


def remembered_seeds() -> list[int]:
    """Seeds that ever failed, oldest first; they run before all others."""
    if not SEEDS_FILE.exists():
        return []
    lines = (line.split("#", 1)[0].strip() for line in SEEDS_FILE.read_text().splitlines())
    return [int(line) for line in lines if line]
