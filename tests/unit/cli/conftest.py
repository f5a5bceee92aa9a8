"""The command, run in this process against the stub server."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from federation.cli.main import run
from federation.cli.session import World
from tests.unit.cli.stub import NOW_MS, Stub, serving


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Muster = Callable[..., Outcome]


@pytest.fixture
def stub() -> Iterator[Stub]:
    with serving() as running:
        yield running


@pytest.fixture
def muster(stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Muster:
    environment = {"HOME": str(tmp_path), "MUSTER_SERVER": stub.url, "MUSTER_TOKEN": "secret"}

    def muster(*arguments: str, **changes: str) -> Outcome:
        code = run(arguments, World({**environment, **changes}, lambda: NOW_MS))
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    return muster
