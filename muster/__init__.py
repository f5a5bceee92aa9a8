"""The users' client of a Muster server: `Client`, `AsyncClient`, results and errors. The only package users import.

Names are loaded when first used, so that `import muster` costs nothing. Nothing of the server lives here.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from muster.aio import AsyncClient
    from muster.client import Client
    from muster.errors import (
        ConflictError,
        ForbiddenError,
        InvalidError,
        MusterError,
        NotFoundError,
        ProtocolError,
        UnavailableError,
    )
    from muster.results import (
        BulkItem,
        ClusterView,
        Decision,
        DecisionList,
        Explanation,
        GroupList,
        GroupView,
        Landed,
        QueueView,
        Submitted,
    )

__version__ = "0.1.0"

_HOMES = {
    "muster.aio": ("AsyncClient",),
    "muster.client": ("Client",),
    "muster.errors": (
        "ConflictError",
        "ForbiddenError",
        "InvalidError",
        "MusterError",
        "NotFoundError",
        "ProtocolError",
        "UnavailableError",
    ),
    "muster.results": (
        "BulkItem",
        "ClusterView",
        "Decision",
        "DecisionList",
        "Explanation",
        "GroupList",
        "GroupView",
        "Landed",
        "QueueView",
        "Submitted",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AsyncClient",
    "BulkItem",
    "Client",
    "ClusterView",
    "ConflictError",
    "Decision",
    "DecisionList",
    "Explanation",
    "ForbiddenError",
    "GroupList",
    "GroupView",
    "InvalidError",
    "Landed",
    "MusterError",
    "NotFoundError",
    "ProtocolError",
    "QueueView",
    "Submitted",
    "UnavailableError",
    "__version__",
]


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'muster' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
