"""The probe as a process: a line for every reading, until nobody reads any more."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.unit.cluster_agents.gpu.stub import Stub

COMMAND: Final = (sys.executable, "-m", "cluster_agents.gpu.probe")
SELDOM: Final = "3000"  # no test waits as long


@contextmanager
def probing(stub: Stub, every_s: str = SELDOM) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen((*COMMAND, every_s), env=stub.environment, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdout is not None
    return dict(json.loads(process.stdout.readline()))


@pytest.mark.long
def test_it_prints_a_reading_at_once_and_another_as_soon_as_something_is_wrong(stub: Stub) -> None:
    with probing(stub) as process:
        first = line(process)
        assert ([gpu["uuid"] for gpu in first["gpus"]], first["events"]) == (["GPU-0", "GPU-1"], [])
        stub.happens(0, 31)
        stub.happens(1, 79)
        assert line(process)["events"] == [["GPU-1", -1, "xid-79"]]


def test_it_reads_again_and_again(stub: Stub) -> None:
    with probing(stub, "0.05") as process:
        assert line(process) == line(process)
        stub.set(ecc_0=1)
        while not (faults := line(process)["gpus"][0].get("faults")):
            pass
        assert faults == ["ecc-uncorrectable"]


def test_it_ends_when_nobody_reads(stub: Stub) -> None:
    with probing(stub, "0.05") as process:
        line(process)
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == 0


def said(stub: Stub) -> tuple[int, str]:
    done = subprocess.run((*COMMAND, SELDOM), env=stub.environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def test_where_there_is_no_gpu_its_last_line_says_why(stub: Stub, tmp_path: Path) -> None:
    stub.set(gpus=0)
    assert said(stub) == (3, "the driver knows no GPU\n")
    assert said(Stub(tmp_path, stub.file)) == (3, "NVML Shared Library Not Found\n")


def test_a_driver_that_goes_away_is_no_lack_of_gpus(stub: Stub) -> None:
    with probing(stub, "0.05") as process:
        line(process)
        stub.set(gone=9)
        assert process.wait(60) == 1


def test_without_the_extra_it_says_what_to_install(stub: Stub, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['pynvml'] = None\n")
    bare = Stub(stub.library, stub.file)
    environment = {**bare.environment, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run((*COMMAND, SELDOM), env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, "this installation has no pynvml: install muster-fleet[gpu]\n")
