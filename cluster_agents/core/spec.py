"""From the bytes of a spec answer to the PodGroup and what it asks for. Refusals are values with reasons."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from pydantic import ValidationError

from cluster_agents.core.config import SPEC_BYTES_MAX
from placement.model import Because, GangRequest, PodGroup, Reason
from placement.requests import TemplateError, gang_request


@dataclass(frozen=True, slots=True)
class Spec:
    group: PodGroup
    request: GangRequest


def read_spec(packed: bytes) -> Spec | Because:
    """The spec in these bytes, or why it cannot be run here."""
    unpack = zlib.decompressobj()
    try:
        plain = unpack.decompress(packed, SPEC_BYTES_MAX)
        if unpack.unconsumed_tail:
            return _unreadable(f"larger than {SPEC_BYTES_MAX} bytes")
        group = PodGroup.model_validate_json(plain)
        return Spec(group, gang_request(group))
    except zlib.error as error:
        return _unreadable(str(error))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return _unreadable(f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
    except TemplateError as error:
        return _unreadable(str(error))


def _unreadable(why: str) -> Because:
    return Because(Reason.TEMPLATE_REFUSED, detail=why)
