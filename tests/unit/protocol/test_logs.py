"""Logging never ends the process."""

import json
import os
import subprocess
import sys
from pathlib import Path


def test_a_disk_full_of_logs_does_not_end_the_process() -> None:
    program = """
import structlog
from federation.protocol.logs import configure_logs
configure_logs("info")
structlog.get_logger().info("lost", why="x" * 100_000)
print("lives")
"""
    command = [sys.executable, "-c", program]
    with Path("/dev/full").open("w") as full:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        shown = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, text=True, check=True, env=environment)
    assert shown.stdout == "lives\n"


def test_who_must_not_wait_drops_the_lines_that_nobody_makes_room_for() -> None:
    """And writes on when there is room again."""
    program = """
import structlog
from federation.protocol.logs import configure_logs
configure_logs("info", waits=False)
for number in range(1_000):
    structlog.get_logger().info("first", number=number, why="x" * 500)
print("lives", flush=True)
input()
structlog.get_logger().info("last")
"""
    command = [sys.executable, "-c", program]
    reads, writes = os.pipe()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=writes, text=True) as process:
        os.close(writes)
        assert process.stdout is not None
        assert process.stdout.readline() == "lives\n"  # though nobody has read a line
        with os.fdopen(reads) as log:
            first = json.loads(log.readline())
            kept = [json.loads(log.readline()) for _ in range(9)]
            process.communicate("\n")
            rest = [json.loads(line) for line in log]
    assert [one["number"] for one in (first, *kept)] == list(range(10))
    assert rest[-1]["event"] == "last"
    assert len(rest) < 989
