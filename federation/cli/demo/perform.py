"""The whole of `muster demo`: start the fleet, play, check, report, and leave nothing behind unless asked to."""

from __future__ import annotations

import contextlib
import json
import shutil
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

import muster
from federation.cli.demo import report
from federation.cli.demo.checks import Broken, Promise, by_group, check_all
from federation.cli.demo.evidence import Evidence
from federation.cli.demo.facts import Facts, facts_of, picture_of
from federation.cli.demo.members import MEMBERS, PRESET, SMALL_MEMBERS, DemoFleet
from federation.cli.demo.play import Play, Screen, Story, gather
from federation.cli.demo.timeline import draw
from federation.cli.demo.workload import Job, compressed, queue_bodies, read_jobs, shares
from federation.cli.errors import CliError, ExitCode
from federation.cli.interrupts import deaf, interruptible
from federation.cli.local import processes, state
from federation.protocol.presets import preset

ARRIVE_S: Final = 25.0  # within which all jobs are submitted: more GPUs than the fleet can give
SMALL_ARRIVE_S: Final = 12.0
SMALL_EVERY: Final = 9  # the small demo takes every ninth job ...
SMALL_GPUS_MAX: Final = 16  # ... that its three small clusters can hold
PAGE: Final = 500
RESULTS: Final = ("summary.txt", "summary.json", "decisions.jsonl", "timeline.svg")
EVIDENCE: Final = "evidence"

Say = Callable[[str], None]


class Eye(Protocol):
    """Where people look: lines, a word on what takes a while, and the play itself."""

    def say(self, text: str) -> None: ...

    def busy(self, text: str) -> contextlib.AbstractContextManager[object]: ...

    def stage(self) -> contextlib.AbstractContextManager[Screen]: ...


@dataclass(frozen=True, slots=True)
class Options:
    folder: Path
    keep: bool
    small: bool

    @property
    def fleet(self) -> Path:
        return self.folder / "fleet"


def perform(options: Options, eye: Eye) -> int:
    """The exit code: 0 only if every job ran and every promise was kept."""
    jobs, share_of = workload(small=options.small)
    _make_room(options)
    fleet = DemoFleet.make(options.fleet, SMALL_MEMBERS if options.small else MEMBERS)
    keeps = False
    with interruptible():
        try:
            _start(fleet, share_of, eye)
            with eye.stage() as screen:
                story = Play(fleet, jobs, screen).run()
            code = _judge(options, fleet, story, jobs, eye.say)
            if options.keep:
                with eye.busy("agents leave their relays, so that the fleet can live on"):
                    fleet.leave()
                keeps = True
                eye.say(_explore(options))
        except KeyboardInterrupt:
            eye.say("stopping everything")
            raise
        finally:
            if not keeps:
                _stop(options, fleet)
    return code


def _start(fleet: DemoFleet, share_of: Mapping[str, float], eye: Eye) -> None:
    """Every process runs, every cluster is in use, and the queues are there."""
    began_s = time.monotonic()
    with eye.busy(f"starting a broker, a server and {len(fleet.members)} clusters with {fleet.gpus:,} GPUs"):
        fleet.up(lambda _: None)
    with fleet.client() as client:
        for name, body in queue_bodies(share_of, fleet.gpus).items():
            client.apply_queue(name, body)
    took_s = time.monotonic() - began_s
    eye.say(f"{len(fleet.local.roles)} processes, {fleet.gpus:,} GPUs on 127.0.0.1 after {took_s:.0f} s")


def _stop(options: Options, fleet: DemoFleet) -> None:
    """Nothing runs any more, and only results are left."""
    with deaf():
        fleet.down()
        shutil.rmtree(options.fleet, ignore_errors=True)
        with contextlib.suppress(OSError):
            options.folder.rmdir()  # there are none after ^C


def workload(*, small: bool) -> tuple[list[Job], dict[str, float]]:
    """The jobs, and each queue's share."""
    folder = _slice_folder()
    trace = read_jobs((folder / "jobs.csv").read_text())
    if small:
        trace = [job for job in trace if job.gpus <= SMALL_GPUS_MAX][::SMALL_EVERY]
    arrive_s = SMALL_ARRIVE_S if small else ARRIVE_S
    return compressed(trace, arrive_within_s=arrive_s), shares((folder / "virtual_clusters.csv").read_text())


def _slice_folder() -> Path:
    """Under examples/ in a checkout, under share/ in an installation."""
    installed = Path(sysconfig.get_path("data")) / "share" / "muster" / "philly"
    for folder in (Path(__file__).parents[3] / "examples" / "philly", installed):
        if (folder / "jobs.csv").is_file():
            return folder
    raise CliError("the jobs of the Philly trace are not installed", "reinstall muster-fleet, or run in a checkout")


def _make_room(options: Options) -> None:
    """The folder is there, and holds nothing of an earlier demo. A fleet that still runs is not ours to stop."""
    known = state.load(state.FleetDir(options.fleet))
    if known is not None:
        if any(processes.alive(record) for record in known.processes.values()):
            what = f"a fleet of an earlier demo runs in {options.fleet}"
            raise CliError(what, f"stop it with `muster down --dir {options.fleet}`", ExitCode.REFUSED)
        shutil.rmtree(options.fleet)
    shutil.rmtree(options.folder / EVIDENCE, ignore_errors=True)
    for name in RESULTS:
        (options.folder / name).unlink(missing_ok=True)
    options.folder.mkdir(parents=True, exist_ok=True)


# --- afterwards ------------------------------------------------------------------------------------------------------


def _judge(options: Options, fleet: DemoFleet, story: Story, jobs: Sequence[Job], say: Say) -> int:
    """Check, write all files, say the summary."""
    evidence = gather(fleet)
    with fleet.client() as client:
        phases = _read_back(client)
        found = check_all(
            story.acknowledged,
            evidence,
            undo_s=preset(PRESET).undo_s,
            phases=phases,
            returned=story.returned,
            finished=story.finished,
        )
        facts = facts_of(story, evidence, jobs)
        accusations = [
            _accuse(client, one, evidence, story)
            for broken in found.values()
            for one in broken[: report.BROKEN_SHOWN_MAX]
        ]
    kept = story.finished and not any(found.values())
    text = _text(facts, found, accusations)
    _write(options, story, evidence, facts, found, text)
    if not kept:
        _keep_evidence(options, fleet, evidence)
    say(f"\n{text}\n{_files(options, kept=kept)}")
    return ExitCode.OK if kept else ExitCode.ERROR


def _text(facts: Facts, found: Mapping[Promise, Sequence[Broken]], accusations: Sequence[str]) -> str:
    held_against = f"{facts.runs:,} runs in the kubelets' logs, {facts.acts:,} acts in the API servers' audits"
    parts = [
        "What happened\n",
        report.summary(facts),
        f"\nThe promises, held against {held_against}\n",
        report.verdicts(found),
        *(f"\n{one}" for one in accusations),
    ]
    return "".join(parts)


def _read_back(client: muster.Client) -> dict[str, str]:
    """What the server says of every group it knows."""
    phases: dict[str, str] = {}
    mark = ""
    while True:
        page = client.list_groups(limit=PAGE, continue_=mark)
        phases.update((view.metadata.uid, view.status.phase) for view in page.items)
        mark = page.metadata.continue_ or ""
        if not mark:
            return phases


def _accuse(client: muster.Client, broken: Broken, evidence: Evidence, story: Story) -> str:
    try:
        history = client.history(broken.uid).items if broken.uid else []
    except muster.MusterError:
        history = []
    runs = by_group(evidence.runs).get(broken.uid, [])
    return report.accusation(broken, history, runs, story.marks.began_s)


def _write(
    options: Options,
    story: Story,
    evidence: Evidence,
    facts: Facts,
    found: Mapping[Promise, Sequence[Broken]],
    text: str,
) -> None:
    title = f"{facts.jobs} jobs of the Philly trace on {facts.clusters} clusters with {facts.gpus:,} GPUs"
    (options.folder / "timeline.svg").write_text(draw(picture_of(story, evidence, title)))
    (options.folder / "summary.txt").write_text(text)
    with (options.folder / "decisions.jsonl").open("wb") as file:
        file.writelines(msgspec.json.encode(decision) + b"\n" for decision in story.progress.log)
    summary: dict[str, Any] = {
        "facts": asdict(facts),
        "promises": {
            promise.code: {
                "promise": promise.text,
                "kept": not broken,
                "broken": [{"uid": one.uid, "name": one.name, "what": one.what, "at_s": one.at_s} for one in broken],
            }
            for promise, broken in found.items()
        },
    }
    (options.folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")


def _keep_evidence(options: Options, fleet: DemoFleet, evidence: Evidence) -> None:
    """What somebody needs who wants to know why: logs of the processes, run logs and audits of the clusters."""
    kept = options.folder / EVIDENCE
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(fleet.local.folder.logs, kept / "logs")
    for member in fleet.members:
        shutil.copy(fleet.run_log(member.name), kept / f"{member.name}-runlog.jsonl")
        acts = b"".join(msgspec.json.encode(act) + b"\n" for act in evidence.acts[member.name])
        (kept / f"{member.name}-acts.jsonl").write_bytes(acts)


def _files(options: Options, *, kept: bool) -> str:
    names = [*RESULTS, *([] if kept else [f"{EVIDENCE}/"])]
    return f"in {options.folder}: {', '.join(names)}"


def _explore(options: Options) -> str:
    return f"""
the fleet runs on; look around with
  export MUSTER_DIR={options.fleet}
  muster get clusters
  muster get podgroups -o wide
  muster history NAME
  muster submit -f examples/gang.yaml --wait
stop it with
  muster down && rm -r {options.fleet}"""
