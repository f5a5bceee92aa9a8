"""From what people write to what Muster places: picks the dialect by `apiVersion` and `kind`.

Adding a dialect: a module beside this one with `read(document) -> PodGroup`, and one row in `DIALECTS`; or, where pods
name a PodGroup from documents of their own, a `foreign.Dialect` in `bundles.FOREIGN`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pydantic import ValidationError

from federation.manifests import batch_job, bundles, jobset, own, upstream, volcano
from federation.manifests.strict import Document, ManifestError
from placement.model import PodGroup, Queue

Reader = Callable[[Document], PodGroup | Queue]

DIALECTS: Final[dict[tuple[str, str], Reader]] = {
    ("muster.io/v1", "PodGroup"): own.read_group,
    ("muster.io/v1", "Queue"): own.read_queue,
    ("batch/v1", "Job"): batch_job.read,
    jobset.KIND: jobset.read,
    volcano.JOB: volcano.read_job,
}


def read(document: Document) -> PodGroup | Queue:
    """The PodGroup or Queue that `document` describes. ManifestError or pydantic's ValidationError name the field."""
    if "apiVersion" not in document and "kind" not in document:
        return PodGroup.model_validate(document)  # the model itself, as the API answers it
    key = (str(document.get("apiVersion", "")), str(document.get("kind", "")))
    if key == bundles.LIST or key in bundles.DIALECT_OF or key in upstream.WORKLOADS:
        return _read_joined(document)
    reader = DIALECTS.get(key)
    if reader is None:
        known = ", ".join(f"{kind} ({version})" for version, kind in sorted({*DIALECTS, *bundles.DIALECT_OF}))
        raise ManifestError(
            "UnknownKind", f"{key[1] or 'no kind'} ({key[0] or 'no apiVersion'}) is not read; known: {known}", "kind"
        )
    return reader(document)


def _read_joined(document: Document) -> PodGroup | Queue:
    """A List that holds one submission; a PodGroup of others that came without its pods is refused."""
    found = bundles.bundled([document])
    if len(found) != 1:
        detail = f"the List holds {len(found)} submissions, one is taken at a time"
        raise ManifestError("TooMany" if found else "MissingField", detail, "items")
    only = found[0][1]
    return bundles.read_joined(only) if bundles.kind_of(only) == bundles.LIST else read(only)


def read_group(document: Document) -> PodGroup:
    """Like `read`, for places where only a PodGroup will do."""
    read_one = read(document)
    if not isinstance(read_one, PodGroup):
        raise ManifestError("UnknownKind", "a Queue cannot be submitted; `muster apply` it", "kind")
    return read_one


__all__ = ["DIALECTS", "ManifestError", "ValidationError", "read", "read_group"]
