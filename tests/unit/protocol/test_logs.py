"""Logging never ends the process."""

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
