"""What a guard is started with, and what ends it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import pytest

from cluster_agents.node_guard import main as guard


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--agent"),
        (("--agent", ""), "'' is not an http:// URL"),
        (("--agent", "https://agent:8470"), "'https://agent:8470' is not an http:// URL"),
        (("--agent", "http://"), "'http://' is not"),
        (("--agent", "http://agent:port"), "'http://agent:port' is not"),
        (("--agent", "http://agent", "--preset", "slow"), "'slow'"),
        (("--agent", "http://agent", "--listen", "8471"), "'8471' is not HOST:PORT"),
        (("--agent", "http://agent", "--log-level", "loud"), "'loud'"),
    ],
)
def test_a_bad_argument_is_refused_with_a_line_that_names_it(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        guard.main(words)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_a_guard_that_does_not_know_its_node_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NODE_NAME", raising=False)
    with pytest.raises(SystemExit) as ended:
        guard.main(("--agent", "http://agent"))
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == 'muster-node-guard: "--node is not given, and NODE_NAME is empty"'


def test_without_its_extra_it_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['proto'] = None; from cluster_agents.node_guard.main import main; main(sys.argv[1:])"
    )
    words = (sys.executable, "-c", script, "--node", "n-1", "--agent", "http://127.0.0.1:1")
    ended = subprocess.run(words, check=False, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr == 'muster-node-guard: "this installation has no proto: install muster-fleet[guard]"\n'


def test_its_clock_counts_the_time_that_a_node_sleeps() -> None:
    assert time.clock_gettime(time.CLOCK_BOOTTIME) <= guard.clock_s() <= time.clock_gettime(time.CLOCK_BOOTTIME)


async def test_whatever_of_it_ends_ends_all() -> None:
    """A guard without one of its parts is none; its kubelet starts it anew."""

    async def fails() -> None:
        raise OSError("no process to be seen")

    others = asyncio.create_task(asyncio.Event().wait())
    with pytest.raises(OSError, match="no process to be seen"):
        await guard._until(asyncio.Event(), [asyncio.create_task(fails()), others])
    assert others.cancelled()
