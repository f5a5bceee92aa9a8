"""What of the Node Resource Interface the guard uses: messages, names and numbers of its protocol, and no more.

Field numbers are those of `pkg/api/api.proto` of github.com/containerd/nri (v0.12) and of `request.proto` of
github.com/containerd/ttrpc (v1.2); fields that are left out are skipped when a message is read.
"""

from __future__ import annotations

from enum import IntEnum, unique
from typing import Final

import proto
from google.protobuf.message import DecodeError

PLUGIN_SERVICE: Final = "nri.pkg.api.v1alpha1.Plugin"
UNREADABLE: Final = (DecodeError, UnicodeDecodeError)  # what a message raises that is none; the second in pure Python
RUNTIME_SERVICE: Final = "nri.pkg.api.v1alpha1.Runtime"
VERSION: Final = "v0.12.3"  # of the protocol, as we read it

__protobuf__ = proto.module(package="muster.nri")


@unique
class Code(IntEnum):
    """Of gRPC's status codes those that we send."""

    OK = 0
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13


@unique
class Event(IntEnum):
    """Of a runtime's events those that the guard wants to hear of."""

    CREATE_CONTAINER = 4
    START_CONTAINER = 6
    REMOVE_CONTAINER = 11

    @property
    def bit(self) -> int:
        """In the mask of a subscription."""
        return 1 << (self.value - 1)


STOPPED: Final = 4  # `Container.state` of one that runs no more


# --- ttrpc: one call and its answer -----------------------------------------------------------------------------------


class Status(proto.Message):
    code = proto.Field(proto.INT32, number=1)
    message = proto.Field(proto.STRING, number=2)


class Request(proto.Message):
    service = proto.Field(proto.STRING, number=1)
    method = proto.Field(proto.STRING, number=2)
    payload = proto.Field(proto.BYTES, number=3)
    timeout_nano = proto.Field(proto.INT64, number=4)


class Response(proto.Message):
    status = proto.Field(Status, number=1)
    payload = proto.Field(proto.BYTES, number=2)


# --- what runs on the node --------------------------------------------------------------------------------------------


class PodSandbox(proto.Message):
    id = proto.Field(proto.STRING, number=1)
    name = proto.Field(proto.STRING, number=2)
    uid = proto.Field(proto.STRING, number=3)
    namespace = proto.Field(proto.STRING, number=4)
    labels = proto.MapField(proto.STRING, proto.STRING, number=5)


class Mount(proto.Message):
    destination = proto.Field(proto.STRING, number=1)
    source = proto.Field(proto.STRING, number=3)


class Container(proto.Message):
    id = proto.Field(proto.STRING, number=1)
    pod_sandbox_id = proto.Field(proto.STRING, number=2)
    name = proto.Field(proto.STRING, number=3)
    state = proto.Field(proto.INT32, number=4)
    annotations = proto.MapField(proto.STRING, proto.STRING, number=6)
    mounts = proto.RepeatedField(Mount, number=9)


# --- calls ------------------------------------------------------------------------------------------------------------


class RegisterPluginRequest(proto.Message):
    plugin_name = proto.Field(proto.STRING, number=1)
    plugin_idx = proto.Field(proto.STRING, number=2)
    nri_version = proto.Field(proto.STRING, number=3)


class ConfigureRequest(proto.Message):
    runtime_name = proto.Field(proto.STRING, number=2)
    runtime_version = proto.Field(proto.STRING, number=3)
    request_timeout = proto.Field(proto.INT64, number=5)  # milliseconds


class ConfigureResponse(proto.Message):
    events = proto.Field(proto.INT32, number=2)


class SynchronizeRequest(proto.Message):
    pods = proto.RepeatedField(PodSandbox, number=1)
    containers = proto.RepeatedField(Container, number=2)
    more = proto.Field(proto.BOOL, number=3)


class SynchronizeResponse(proto.Message):
    more = proto.Field(proto.BOOL, number=2)


class ContainerRequest(proto.Message):
    """CreateContainer, StartContainer and RemoveContainer alike."""

    pod = proto.Field(PodSandbox, number=1)
    container = proto.Field(Container, number=2)


class StateChangeEvent(proto.Message):
    """What runtimes before NRI 0.11 send in place of the calls by name."""

    event = proto.Field(proto.INT32, number=1)
    pod = proto.Field(PodSandbox, number=2)
    container = proto.Field(Container, number=3)
