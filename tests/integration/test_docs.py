"""The commands of README and docs, in the order in which they stand there, run against one fleet in a new home.

The README's transcript is compared with what is printed: first and last lines, numbers aside.
"""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from federation.cli.local import processes, state
from federation.cli.local.state import FleetDir
from tests.documents import PAGES, ROOT, Command, blocks, commands

PATIENCE_S = 180.0  # a hung command fails the test instead of stopping the lane
NOT_HERE = ("make ", ". .venv/")  # CI runs these themselves; here the environment is the one the tests run in

COMMANDS = [
    command
    for page in PAGES
    for block in blocks(page)
    for command in commands(block)
    if not command.line.startswith(NOT_HERE)
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty home; whatever still runs there at the end is killed."""
    folder = tmp_path_factory.mktemp("home")
    yield folder
    known = state.load(FleetDir(fleet_in(folder)))
    if known is not None:
        processes.kill(list(known.processes.values()))


def fleet_in(home: Path) -> Path:
    return home / ".local" / "share" / "muster"


def shell(home: Path, line: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line],
        cwd=ROOT,
        env={"HOME": str(home), "PATH": path, "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def bare(text: str, home: Path) -> str:
    """`text` without what differs from run to run: numbers, the nonce of a uid, the home, the width of columns."""
    text = text.replace(str(home), "~")
    text = re.sub(r"\d{13}-[0-9a-f]+\.\d+", "UID", text)
    return re.sub(r"\s+", " ", re.sub(r"\d[\d.]*", "0", text))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command.page.name}: {command.line[:60]}")
def test_a_command_of_the_documents_works_and_prints_what_is_shown(home: Path, command: Command) -> None:
    done = shell(home, command.line)
    assert done.returncode == 0, done.stderr
    if command.output:
        printed = done.stdout.splitlines()
        for at in (0, -1):
            assert bare(printed[at], home) == bare(command.output[at], home)


def test_the_copies_of_the_transcript_never_ran_at_the_same_time(home: Path) -> None:
    logs = sorted(fleet_in(home).glob("clusters/*/runlog.jsonl"))
    log = [line for path in logs for line in path.read_text().splitlines()]
    first, second = sorted({cluster for line in log for cluster in re.findall(r'"cluster":"([^"]+)".*train-', line)})
    ended_s = [float(at) for line in log for at in re.findall(rf'"{first}".*train-.*"ended","at_s":([\d.]+)', line)]
    started_s = [
        float(at) for line in log for at in re.findall(rf'"{second}".*train-.*"started","at_s":([\d.]+)', line)
    ]
    assert (len(ended_s), len(started_s)) == (4, 4)
    assert max(ended_s) < min(started_s)


def test_down_stops_all_of_it(home: Path) -> None:
    assert shell(home, "muster down").returncode == 0
    known = state.load(FleetDir(fleet_in(home)))
    assert known is not None
    assert known.processes == {}
