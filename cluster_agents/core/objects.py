"""Reading untrusted Kubernetes JSON: absent or ill-typed fields read as empty, never as an error.

What an object means (a pod, a node) is said in `pods` and `inventory`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from placement.requests import TemplateError, quantity

DEPARTED_MAX: Final = 20_000  # uids of removed objects; answers older than that many removals do not come
QUANTITIES_CACHED_MAX: Final = 8_192  # distinct texts in a cluster; nearly all pods share a few
MIB: Final = 2**20
VERSION_CHARS_MAX: Final = 20  # of a resourceVersion: 64 bits

_EMPTY: Final[Mapping[str, Any]] = {}


def mapping(obj: object, *path: str) -> Mapping[str, Any]:
    """The mapping at `path`, or an empty one."""
    for key in path:
        if not isinstance(obj, dict):  # JSON objects are dicts; asking for a Mapping costs five times as much
            return _EMPTY
        obj = obj.get(key)
    return obj if isinstance(obj, dict) else _EMPTY


def text(obj: object, *path: str) -> str:
    """The text at `path`, or ""."""
    value = mapping(obj, *path[:-1]).get(path[-1])
    return value if isinstance(value, str) else ""


def items(obj: object, *path: str) -> tuple[Mapping[str, Any], ...]:
    """The mappings in the list at `path`; what is no mapping is left out."""
    value = mapping(obj, *path[:-1]).get(path[-1])
    if not isinstance(value, list | tuple):
        return ()
    return tuple(one for one in value if isinstance(one, dict))


def is_list(obj: object) -> bool:
    """Whether this answers a list. What does not (a proxy's page, half an answer) would say that nothing is there."""
    if not isinstance(obj, dict) or "items" not in obj or not isinstance(obj["items"], list | tuple | None):
        return False
    return bool(text(obj, "metadata", "resourceVersion"))


def texts(obj: object, *path: str) -> tuple[str, ...]:
    """The texts in the list at `path`."""
    value = mapping(obj, *path[:-1]).get(path[-1])
    if not isinstance(value, list | tuple):
        return ()
    return tuple(one for one in value if isinstance(one, str))


def version(obj: object) -> int:
    """The resourceVersion as a number (comparable since Kubernetes 1.35, and in all etcd-backed servers before)."""
    value = text(obj, "metadata", "resourceVersion")
    return int(value) if value.isascii() and value.isdigit() and len(value) <= VERSION_CHARS_MAX else 0


def whole(amounts: Mapping[str, Any], resource: str) -> int:
    """A count, rounded down; 0 where absent or unreadable."""
    return _amount(str(amounts.get(resource, "0")), 1, 1)


def cpu_milli(amounts: Mapping[str, Any], *, up: bool) -> int:
    """CPU in thousandths, rounded up for requests and down for what a node has."""
    return _rounded(str(amounts.get("cpu", "0")), 1_000, 1, up)


def memory_mib(amounts: Mapping[str, Any], *, up: bool) -> int:
    """Memory in MiB, rounded up for requests and down for what a node has."""
    return _rounded(str(amounts.get("memory", "0")), 1, MIB, up)


def _rounded(value: str, times: int, over: int, up: bool) -> int:  # noqa: FBT001 - private, always named by callers
    return -_amount(value, -times, over) if up else _amount(value, times, over)


@lru_cache(maxsize=QUANTITIES_CACHED_MAX)
def _amount(value: str, times: int, over: int) -> int:
    """floor(value * times / over); 0 for what is no quantity."""
    try:
        exact = quantity(value, "quantity") * times / over
    except TemplateError:
        return 0
    return exact.numerator // exact.denominator


class Departed:
    """Uids of objects that are gone: a late answer or event must not bring one back. Bounded, oldest forgotten."""

    def __init__(self) -> None:
        self._uids: dict[str, None] = {}

    def __contains__(self, uid: str) -> bool:
        return uid in self._uids

    def discard(self, uid: str) -> None:
        self._uids.pop(uid, None)

    def add(self, uid: str) -> None:
        self._uids[uid] = None
        if len(self._uids) > DEPARTED_MAX:
            del self._uids[next(iter(self._uids))]
