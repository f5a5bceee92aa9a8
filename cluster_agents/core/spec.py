"""From the bytes of a spec answer to the PodGroup and what it asks for. Refusals are values with reasons."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from cluster_agents.core.config import SPEC_BYTES_MAX
from placement.model import Because, GangRequest, PodGroup, Reason, UnreadableGroupError, read_pod_group
from placement.requests import TemplateError, gang_request


@dataclass(frozen=True, slots=True)
class Spec:
    """`packed` and `origin`: as they came, to be kept in the intent."""

    group: PodGroup
    request: GangRequest
    packed: bytes = b""
    origin: bytes = b""


def read_spec(packed: bytes, origin: bytes = b"") -> Spec | Because:
    """The spec in these bytes, or why it cannot be run here."""
    unpack = zlib.decompressobj()
    try:
        plain = unpack.decompress(packed, SPEC_BYTES_MAX)
        if unpack.unconsumed_tail:
            return _unreadable(f"larger than {SPEC_BYTES_MAX} bytes")
        group = read_pod_group(plain)
        return Spec(group, gang_request(group), packed, origin)
    except zlib.error as error:
        return _unreadable(str(error))
    except (UnreadableGroupError, TemplateError) as error:
        return _unreadable(str(error))


def _unreadable(why: str) -> Because:
    return Because(Reason.TEMPLATE_REFUSED, detail=why)
