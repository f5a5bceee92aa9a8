"""`make exam`: every part at full size, resumable by part, with a report to commit. No checks of its own.

A part that passed for this very commit is not run again; with uncommitted changes every part runs. The report lands in
`docs/results/`.
"""

import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.world.mutants import MUTANTS

ROOT = Path(__file__).resolve().parent.parent
STAMPS = ROOT / ".exam"
REPORTS = ROOT / "docs" / "results"

WORLD_SEEDS = 1_000
WORLD_SEEDS_PER_PART = 100  # a part is what is lost when the exam is interrupted: a few minutes
MINUTES_MAX = 80  # for the whole exam, on two cores of which nobody else uses one (`DESIGN.md` §13)
WORLD_SEED_S = 2.5  # one seed with two processes at work: 2.7 in the exam of bef3e83, and 7 % less CPU since
TAIL_LINES = 12  # enough for a runner's closing lines

SEEDS_TO_CATCH = {
    "deadline_from_reply": 10,
    "floor_ignored": 7,
    "ledger_drop_without_landed": 63,
    "recovery_hears_nobody_out": 11,
    "report_from_before_counts": 20,
    "restart_gives_ttl": 19,
}


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    argv: tuple[str, ...]
    about_s: float  # on two idle cores, for the estimate only


@dataclass(frozen=True, slots=True)
class PartDone:
    name: str
    passed: bool
    took_s: float
    tail: str


def parts() -> list[Part]:
    """In the order in which they run: what fails soonest comes first."""
    python = sys.executable
    world = [
        Part(
            f"world-{first:04d}",
            (
                python,
                "-m",
                "tests.world",
                "--seeds",
                f"{first}:{first + WORLD_SEEDS_PER_PART}",
                "--minutes",
                "15",
                "--jobs",
                "2",
            ),
            WORLD_SEEDS_PER_PART * WORLD_SEED_S,
        )
        for first in range(0, WORLD_SEEDS, WORLD_SEEDS_PER_PART)
    ]
    return [
        Part("check", ("make", "format", "lint", "types", "imports", "unit"), 75),
        Part("contract", ("make", "contract"), 210),
        Part("model-store", (python, "-m", "tests.model_store"), 60),
        Part("integration", ("make", "integration"), 450),
        Part("kubernetes", ("make", "kubernetes"), 200),  # a quarter of an hour more where it was never built
        Part("quality", (python, "-m", "tests.quality"), 390),
        Part("home-rule", (python, "-m", "tests.model", "--large"), 120),
        *world,
        *(
            Part(
                f"mutant-{name}",
                (python, "-m", "tests.world", "--seeds", "0:200", "--mutant", name, "--jobs", "2"),
                SEEDS_TO_CATCH.get(name, 2) * WORLD_SEED_S,
            )
            for name in sorted(MUTANTS)
        ),
        Part("survival", (python, "-m", "tests.survival", "--runs", "5", "--jobs", "3", "-o", "json"), 600),
    ]


def estimate_s() -> float:
    """How long all parts take together on two idle cores."""
    return sum(part.about_s for part in parts())


def main() -> int:
    """0 when every part has passed for this commit; the report is written in any case."""
    commit, clean = _commit()
    folder = STAMPS / commit
    folder.mkdir(parents=True, exist_ok=True)
    done: list[PartDone] = []
    print(
        f"exam: {len(parts())} parts, about {estimate_s() / 60:.0f} of at most {MINUTES_MAX} min, on two idle cores",
        flush=True,
    )
    for part in parts():
        stamp = folder / f"{part.name}.json"
        if clean and stamp.exists():
            done.append(PartDone(**json.loads(stamp.read_text())))
            print(f"exam: {part.name}: passed before", flush=True)
            continue
        result = _run(part)
        done.append(result)
        if clean and result.passed:
            stamp.write_text(json.dumps(asdict(result)))
        print(f"exam: {part.name}: {'passed' if result.passed else 'FAILED'} in {result.took_s:.0f} s", flush=True)
    report = _write_report(commit, clean, done)
    failed = [part.name for part in done if not part.passed]
    print(f"exam: {len(done) - len(failed)} of {len(done)} parts passed; report in {report.relative_to(ROOT)}")
    return 1 if failed else 0


def _commit() -> tuple[str, bool]:
    def git(*argv: str) -> str:
        return subprocess.run(("git", *argv), cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--", ".", ":(exclude)docs/results")
    return git("rev-parse", "--short=12", "HEAD"), not changed


def _run(part: Part) -> PartDone:
    print(f"exam: {part.name}: {' '.join(part.argv)}", flush=True)
    started_s = time.monotonic()
    lines: list[str] = []
    with subprocess.Popen(
        part.argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            sys.stdout.write(line)
            lines = [*lines[1 - TAIL_LINES :], line.rstrip()]
    return PartDone(part.name, process.returncode == 0, round(time.monotonic() - started_s, 1), "\n".join(lines))


def _write_report(commit: str, clean: bool, done: list[PartDone]) -> Path:
    REPORTS.mkdir(parents=True, exist_ok=True)
    report = REPORTS / f"{commit}{'' if clean else '-changed'}.md"
    rows = [f"| {part.name} | {'passed' if part.passed else '**failed**'} | {part.took_s:.0f} |" for part in done]
    tails = [f"## {part.name}\n\n```\n{part.tail.replace(str(ROOT), '.')}\n```\n" for part in done]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    report.write_text(
        "\n".join(
            [
                f"# Exam of {commit}{'' if clean else ' with uncommitted changes'}\n",
                f"Machine: {machine}. Total: {sum(part.took_s for part in done):.0f} s.\n",
                "| part | result | s |",
                "|---|---|---|",
                *rows,
                "",
                *tails,
            ]
        )
    )
    return report


if __name__ == "__main__":
    sys.exit(main())
