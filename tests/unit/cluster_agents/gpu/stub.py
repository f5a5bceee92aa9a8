"""A driver for tests: the real `pynvml` calls a small library of our own, which reads its answers from a file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

SOURCE: Final = Path(__file__).with_name("libnvidia_ml.c")
NAME: Final = "libnvidia-ml.so.1"
XID, DOUBLE_BIT = 8, 2
NO_INSTANCE: Final = 0xFFFFFFFF

# Obeys line by line: what a probe does, one step at a time.
OBEYS: Final = """
import sys
import msgspec
from cluster_agents.gpu.nvml import NoGpusError, Nvml
for line in sys.stdin:
    word, *rest = line.split()
    try:
        if word == "start":
            nvml, said = Nvml(), None
        elif word == "wait":
            said = nvml.wait(float(rest[0]))
        elif word == "listens":
            said = nvml.listens
        else:
            said = nvml.read()
    except NoGpusError as error:
        said = {"none": str(error)}
    print(msgspec.json.encode(said).decode(), flush=True)
"""


def build(folder: Path, *flags: str) -> Path:
    """The library in this folder; a machine without a C compiler cannot test what reads GPUs."""
    compiler = shutil.which("gcc")
    assert compiler, "the tests of the GPU probe build a library in C: install gcc"
    folder.mkdir(parents=True, exist_ok=True)
    words = (compiler, "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", *flags, "-o", str(folder / NAME), str(SOURCE))
    subprocess.run(words, check=True)
    return folder


@dataclass
class Stub:
    """A machine's driver. `set` changes what it answers from now on."""

    library: Path
    file: Path
    answers: dict[str, object] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)

    def set(self, **answers: object) -> None:
        """`gpus=2`, or `ecc_1=3` of the GPU with that number; None takes one away."""
        for key, value in answers.items():
            name, _, number = key.partition("_")
            self.answers[f"{number}.{name}" if number else name] = value
        self._write()

    def clear(self) -> None:
        self.answers.clear()
        self.events.clear()

    def happens(self, gpu: int, data: int, *, kind: int = XID, instance: int = NO_INSTANCE) -> None:
        self.events.append(f"event={gpu}:{kind}:{data}:{instance}")
        self._write()

    def _write(self) -> None:
        lines = [f"{key}={value}" for key, value in self.answers.items() if value is not None]
        scratch = self.file.with_suffix(".tmp")
        scratch.write_text("\n".join([*lines, *self.events, ""]))
        scratch.replace(self.file)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "LD_LIBRARY_PATH": str(self.library), "NVML_STUB": str(self.file)}


class Obeying:
    """A process that has loaded the library and reads when it is told to."""

    def __init__(self, stub: Stub) -> None:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen((sys.executable, "-c", OBEYS), env=stub.environment, **pipes)

    def does(self, words: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{words}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()
