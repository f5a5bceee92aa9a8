"""From what people write to what Muster places: picks the dialect by `apiVersion` and `kind`.

Adding a dialect: a module beside this one with `read(document) -> PodGroup`, and one row in `DIALECTS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pydantic import ValidationError

from federation.manifests import batch_job, own
from federation.manifests.strict import Document, ManifestError
from placement.model import PodGroup, Queue

Reader = Callable[[Document], PodGroup | Queue]

DIALECTS: Final[dict[tuple[str, str], Reader]] = {
    ("muster.io/v1", "PodGroup"): own.read_group,
    ("muster.io/v1", "Queue"): own.read_queue,
    ("batch/v1", "Job"): batch_job.read,
}


def read(document: Document) -> PodGroup | Queue:
    """The PodGroup or Queue that `document` describes. ManifestError or pydantic's ValidationError name the field."""
    if "apiVersion" not in document and "kind" not in document:
        return PodGroup.model_validate(document)  # the model itself, as the API answers it
    key = (str(document.get("apiVersion", "")), str(document.get("kind", "")))
    reader = DIALECTS.get(key)
    if reader is None:
        known = ", ".join(f"{kind} ({version})" for version, kind in sorted(DIALECTS))
        raise ManifestError(
            "UnknownKind", f"{key[1] or 'no kind'} ({key[0] or 'no apiVersion'}) is not read; known: {known}", "kind"
        )
    return reader(document)


def read_group(document: Document) -> PodGroup:
    """Like `read`, for places where only a PodGroup will do."""
    read_one = read(document)
    if not isinstance(read_one, PodGroup):
        raise ManifestError("UnknownKind", "a Queue cannot be submitted; `muster apply` it", "kind")
    return read_one


__all__ = ["DIALECTS", "ManifestError", "ValidationError", "read", "read_group"]
