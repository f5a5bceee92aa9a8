"""`python -m tests.quality`: every list of a folder placed by every rule, ten seeds each; exit 1 when a bar is missed.

By default the lists that come along with the project. `-o` writes what `docs/results/openb.json` holds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from federation.simulate.churn import ChurnReport, run_churn
from federation.simulate.openb import Exam, FleetShape, OpenbReport, PolicyName, run_openb
from federation.simulate.openb_clusters import Split
from federation.simulate.openb_lists import read_nodes, read_pods
from tests.quality.bars import missed_alone, missed_federated, missed_together, missed_with_departures

LISTS: Final = Path(__file__).resolve().parents[2] / "examples" / "openb"
NODES: Final = "openb_node_list_gpu_node.csv.gz"
PODS: Final = "openb_pod_list_{}.csv.gz"

SEEDS: Final = tuple(range(42, 52))
SEEDS_FEDERATED: Final = tuple(range(42, 47))
SEEDS_OLD_VIEW: Final = (42, 43)
SEEDS_CHURN: Final = tuple(range(42, 46))
CLUSTERS: Final = 16
VIEW_AGES: Final = (10, 100, 1_000)
LIST_OF_FLEETS: Final = "default"  # clusters and departures are tried on this one


@dataclass(frozen=True, slots=True, order=True)
class Run:
    """One rule on one list in one way. `clusters` 1: one pool."""

    kind: str  # alone | federated | churn
    name: str
    policy: str
    split: str = ""
    view_age: int = 0


def runs_of(names: Iterable[str]) -> Iterator[Run]:
    """All runs, the longest first, so that two processes end together."""
    names = sorted(names)
    if LIST_OF_FLEETS in names:
        yield from (Run("churn", LIST_OF_FLEETS, rule) for rule in ("muster", "fgd", "bestfit"))
        for split in Split:
            yield Run("federated", LIST_OF_FLEETS, "muster", split)
            yield from (Run("federated", LIST_OF_FLEETS, "muster", split, age) for age in VIEW_AGES)
    for rule in PolicyName:
        yield from (Run("alone", name, rule) for name in names)


def carry_out(folder: Path, run: Run) -> OpenbReport | ChurnReport:
    """What came of it. In a process of its own."""
    nodes, pods = read_nodes(folder / NODES), read_pods(folder / PODS.format(run.name))
    policy = PolicyName(run.policy)
    match run.kind:
        case "churn":
            return run_churn(Exam(nodes, pods), policy, SEEDS_CHURN)
        case "federated":
            fleet = FleetShape(CLUSTERS, Split(run.split), run.view_age)
            seeds = SEEDS_OLD_VIEW if run.view_age else SEEDS_FEDERATED
            return run_openb(Exam(nodes, pods, fleet=fleet), policy, seeds)
        case _:
            return run_openb(Exam(nodes, pods), policy, SEEDS)


def missed(found: dict[Run, Any]) -> list[str]:
    """Every bar that was not reached, in the order of the runs."""
    out: list[str] = []
    for run, report in sorted(found.items()):
        if run.kind == "alone":
            out += missed_alone(run.name, report)
        elif run.kind == "federated":
            out += missed_federated(report)
    out += missed_together({run.name: report for run, report in _of(found, "alone", PolicyName.MUSTER)})
    churned = [report for run, report in sorted(found.items()) if run.kind == "churn"]
    return out + (list(missed_with_departures(LIST_OF_FLEETS, churned)) if churned else [])


def _of(found: dict[Run, Any], kind: str, policy: str) -> Iterator[tuple[Run, Any]]:
    return ((run, report) for run, report in sorted(found.items()) if (run.kind, run.policy) == (kind, policy))


def as_json(found: dict[Run, Any]) -> dict[str, Any]:
    """Full runs of our rule; of the published ones, which others can run again, the means."""
    return {
        "what": "python -m tests.quality: unallocated GPU percent by arrived load; with departures, GPU time refused",
        "muster": {run.name: _plain(report) for run, report in _of(found, "alone", PolicyName.MUSTER)},
        "published_rules": {
            rule: {run.name: report.mean for run, report in _of(found, "alone", rule)}
            for rule in PolicyName
            if rule is not PolicyName.MUSTER
        },
        "clusters": [_plain(report) for _, report in _of(found, "federated", PolicyName.MUSTER)],
        "churn": [_plain(report) for run, report in sorted(found.items()) if run.kind == "churn"],
    }


def _plain(report: OpenbReport | ChurnReport) -> Any:
    """Without the seconds: they are the machine's, and the rest is the same everywhere."""
    plain = msgspec.to_builtins(report)
    del plain["seconds"]
    return plain


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.quality", description=__doc__)
    parser.add_argument("--lists", type=Path, default=LISTS, help="a folder of openb lists")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, help="where to write all figures as JSON")
    options = parser.parse_args(argv)
    prefix, suffix = PODS.split("{}")
    names = [path.name.removeprefix(prefix).removesuffix(suffix) for path in options.lists.glob(PODS.format("*"))]
    found: dict[Run, Any] = {}
    with ProcessPoolExecutor(options.jobs) as pool:
        waiting = {pool.submit(carry_out, options.lists, run): run for run in runs_of(names)}
        for future in as_completed(waiting):
            run = waiting[future]
            found[run] = future.result()
            sys.stdout.write(f"{_told(run, found[run])}\n")
            sys.stdout.flush()
    faults = missed(found)
    if options.output is not None:
        options.output.write_text(json.dumps(as_json(found), indent=1) + "\n")
    sys.stdout.writelines(f"MISSED {fault}\n" for fault in faults)
    sys.stdout.write(f"{len(found)} runs, {len(faults)} bars missed\n")
    return 1 if faults else 0


def _told(run: Run, report: OpenbReport | ChurnReport) -> str:
    how = " ".join(str(part) for part in (run.kind, run.name, run.policy, run.split, run.view_age) if part)
    if isinstance(report, ChurnReport):
        figures = ", ".join(f"{row.load}: {row.refused_pct:.2f}" for row in report.loads)
        return f"{how}: refused {figures} ({report.seconds:.0f} s)"
    return f"{how}: {report.mean['100']:.2f} unallocated at 100 % ({report.seconds:.0f} s)"


if __name__ == "__main__":
    sys.exit(main())
