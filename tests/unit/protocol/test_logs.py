"""Logging never ends the process."""

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
        shown = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, text=True, check=True)
    assert shown.stdout == "lives\n"
