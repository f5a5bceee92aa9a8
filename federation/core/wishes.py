"""What PodGroups ask for, remembered by what was written: most submissions of a fleet are alike but for their names.

A memory of a pure function and nothing else: what it says is what `gang_request` would.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Final, NamedTuple

from federation.core.records import RoleExtra, RoleShape
from federation.core.stored import extras_of, shapes_of
from placement.model import GangRequest, PodGroup
from placement.pod_wishes import check_honoured
from placement.requests import gang_request

WISHES_KEPT_MAX: Final = 4_096  # some KiB each; a fleet sees as many different ones in days
# Of a PodGroup: all that a wish is made of. `workload`, which an elastic group may not have, is looked at before.
FIELDS: Final = ("roles", "min_count", "elastic", "topology", "clusters", "data")


class Wish(NamedTuple):
    """The request class of a PodGroup, and its roles as a record has them."""

    request: GangRequest
    shapes: tuple[RoleShape, ...]
    extras: tuple[RoleExtra, ...]


class Wishes:
    """`of` is `wish_of`, faster where equal fields were seen lately."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[bytes, Wish] = {}

    def __len__(self) -> int:
        return len(self._known)

    def of(self, group: PodGroup, fields: Mapping[str, str]) -> Wish:
        """What the group asks for, of which `fields` are the canonical ones. Raises as `wish_of` does."""
        key = sha256("\0".join([fields.get(name, "") for name in FIELDS]).encode()).digest()
        found = self._known.get(key)
        if found is None:
            found = wish_of(group)
            if len(self._known) >= WISHES_KEPT_MAX:
                self._known.clear()
            self._known[key] = found
        return found


def wish_of(group: PodGroup) -> Wish:
    """TemplateError for a template that cannot be read, NotHonouredError for one that requires what is not done."""
    request = gang_request(group)
    check_honoured(group)
    return Wish(request, shapes_of(request), extras_of(request))
