"""`--help`, `version` and completion answer at once: nothing heavy is loaded for them."""

import subprocess
import sys

import pytest

import muster as client
from federation.cli.main import COMMANDS
from tests.unit.cli.conftest import Muster

HEAVY = ("httpx", "msgspec", "yaml", "rich", "pydantic", "numpy", "asyncio", "nats", "federation.manifests")


@pytest.mark.parametrize("arguments", [["--help"], ["version"], ["get", "--help"], ["completion", "zsh"]])
def test_quick_commands_load_nothing_heavy(arguments: list[str]) -> None:
    program = f"""
import sys
from federation.cli.main import run
code = run({arguments!r})
loaded = sorted(name for name in {HEAVY!r} if name in sys.modules)
sys.stderr.write(f"{{code}} {{loaded}}")
"""
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stderr == "0 []"


def test_help_lists_every_command_with_a_whole_sentence(muster: Muster) -> None:
    lines = muster("--help").out.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in lines] == list(COMMANDS)
    assert [line for line in lines if line.endswith("...")] == []


def test_version_is_the_packages(muster: Muster) -> None:
    assert muster("version").out == f"muster {client.__version__}\n"


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_scripts_call_us(muster: Muster, shell: str) -> None:
    assert "_MUSTER_COMPLETE" in muster("completion", shell).out
