"""The probe as a process: it prints a line for every reading, at once where something new is wrong.

The guard that started it reads them. It may hang in the driver, beyond any signal, which must not be the guard's fate:
so they share nothing but a pipe. Without the reader it ends.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Final, NoReturn

import msgspec

if TYPE_CHECKING:
    from cluster_agents.gpu.nvml import Nvml

GAP_S: Final = 1.0  # between a reading and one for what happened since
EXIT_NOTHING: Final = 3  # there is nothing to read; the last line on stderr says why


def main() -> NoReturn:
    """Entry point, with the seconds between readings as its argument. Ends when nobody reads any more, or when there
    is nothing to read."""
    every_s = float(sys.argv[1])
    try:
        from cluster_agents.gpu.nvml import NoGpusError, Nvml
    except ModuleNotFoundError as error:
        _nothing(f"this installation has no {error.name}: install muster-fleet[gpu]")
    try:
        nvml = Nvml()
    except NoGpusError as error:
        _nothing(str(error))
    try:
        _print_readings(nvml, every_s)
    except NoGpusError as error:
        sys.exit(f"{error}")  # they were there a moment ago, and may be soon
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in the buffer has no reader
    sys.exit(0)


def _print_readings(nvml: Nvml, every_s: float) -> NoReturn:
    encoder = msgspec.json.Encoder()
    while True:
        sys.stdout.buffer.write(encoder.encode(nvml.read()) + b"\n")
        sys.stdout.buffer.flush()
        _rest(nvml, every_s)


def _rest(nvml: Nvml, every_s: float) -> None:
    """Until the next reading is due, or something is wrong; a storm of that makes a line a second."""
    began_s = time.monotonic()
    while (left_s := began_s + every_s - time.monotonic()) > 0:
        if not nvml.listens:
            time.sleep(left_s)
        elif nvml.wait(left_s):
            time.sleep(max(0.0, began_s + GAP_S - time.monotonic()))
            return


def _nothing(why: str) -> NoReturn:
    sys.stderr.write(f"{why}\n")
    sys.exit(EXIT_NOTHING)


if __name__ == "__main__":
    main()
