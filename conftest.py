"""What holds for every test, before any test module is imported. No fixtures of single suites here."""

import os

# etcd3's generated code loads only with the pure-Python protobuf, and the choice counts only if it is made before the
# first import of protobuf by anyone. Who has set it already keeps their choice.
os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")

# Tests start servers while etcd's client runs: its handlers in the forked child touch files of the parent.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
