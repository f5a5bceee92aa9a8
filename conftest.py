"""What holds for every test, before any test module is imported. No fixtures of single suites here."""

import os
import signal

from hypothesis import settings

# etcd3's generated code loads only with the pure-Python protobuf, and the choice counts only if it is made before the
# first import of protobuf by anyone. Who has set it already keeps their choice.
os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")

# Tests start servers while etcd's client runs: its handlers in the forked child touch files of the parent.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# Where a shell runs the suite in the background, the interrupt is ignored, and processes that tests start and interrupt
# would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Nothing is judged by the clock: hypothesis's deadline of 200 ms would, and fails on a busy machine.
settings.register_profile("house", deadline=None)
settings.load_profile("house")
