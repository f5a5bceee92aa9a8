"""Starting and stopping one server process, and waiting until it answers."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import os
import random
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILT = ROOT / "build" / "servers"
START_WAIT_S = 180.0  # a server that has not answered by then never will, even on a loaded machine
STOP_WAIT_S = 10.0
POLL_S = 0.05
PORTS = range(20_000, 32_000)
PORT_TRIES = 100
PR_SET_PDEATHSIG = 1  # linux/prctl.h
LOG_TAIL = 2_000


def free_port() -> int:
    """A port of the loopback address that nobody listens on now.

    Below those that the kernel gives to outgoing connections: a client that keeps calling a server which is down
    could otherwise be given the server's own port, and the server could not come back.
    """
    for port in random.sample(PORTS, PORT_TRIES):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(f"none of {PORT_TRIES} ports was free")


def built(*parts: str) -> str:
    """What `make servers` has made; says so when it has not."""
    path = BUILT.joinpath(*parts)
    if not path.exists():
        raise FileNotFoundError(f"{path.relative_to(ROOT)} is not there: run `make servers`")
    return str(path)


@contextlib.contextmanager
def running(
    argv: Sequence[str],
    folder: Path,
    *,
    answers_at: str,
    environment: Mapping[str, str] | None = None,
    authority: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A server with its log in `folder`, from its first answer until the block ends; over HTTPS `authority` has signed
    its certificate."""
    log = folder / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            argv,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdout=out,
            stderr=subprocess.STDOUT,
            preexec_fn=end_with_parent,  # noqa: PLW1509  one call into the kernel, no lock taken
        )
    try:
        _wait_until_it_answers(process, answers_at, log, authority)
        yield process
    finally:
        stop(process)


def end_with_parent() -> None:
    """Let the kernel end this process when the tests are killed; for `preexec_fn`."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End one process for certain."""
    process.terminate()
    try:
        process.wait(STOP_WAIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_it_answers(process: subprocess.Popen[bytes], url: str, log: Path, authority: Path | None) -> None:
    context = None if authority is None else ssl.create_default_context(cafile=str(authority))
    give_up_s = time.monotonic() + START_WAIT_S
    while True:
        try:
            urllib.request.urlopen(url, timeout=5.0, context=context).close()
            return
        except urllib.error.HTTPError:
            return  # any answer will do
        except (OSError, http.client.HTTPException):
            pass
        if process.poll() is not None or time.monotonic() >= give_up_s:
            tail = log.read_text(errors="replace")[-LOG_TAIL:]
            raise RuntimeError(f"{process.args!r} does not answer at {url}:\n{tail}")
        time.sleep(POLL_S)
