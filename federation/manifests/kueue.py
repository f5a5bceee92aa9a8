"""Jobs and JobSets labelled for Kueue: its queue becomes ours, its other wishes theirs, and its labels go no further.

A member cluster that runs Kueue must not queue the object a second time, so nothing of `kueue.x-k8s.io/` is left on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from federation.manifests.strict import Document, ManifestError
from federation.manifests.wishes import PREFIX, integer, mapping, optional, texts

GROUP: Final = "kueue.x-k8s.io/"
QUEUE: Final = f"{GROUP}queue-name"
PRIORITY_CLASS: Final = f"{GROUP}priority-class"
MAX_RUN: Final = f"{GROUP}max-exec-time-seconds"
TOPOLOGY_REQUIRED: Final = f"{GROUP}podset-required-topology"
TOPOLOGY_PREFERRED: Final = f"{GROUP}podset-preferred-topology"
SLICE_REQUIRED: Final = f"{GROUP}podset-slice-required-topology"
SLICE_SIZE: Final = f"{GROUP}podset-slice-size"
_TAKEN: Final = frozenset({QUEUE, PRIORITY_CLASS, MAX_RUN, TOPOLOGY_REQUIRED, TOPOLOGY_PREFERRED})


def labelled(document: Mapping[str, Any]) -> bool:
    """Whether the object asks for a queue of Kueue's."""
    metadata = document.get("metadata")
    return isinstance(metadata, dict) and QUEUE in texts(metadata, "labels")


def wishes_of_job(document: Document) -> dict[str, Any]:
    """What Kueue's labels and annotations ask for, as fields of the model; nothing for a Job without its queue."""
    if not labelled(document):
        return {}
    template = optional(optional(document, "spec", "spec"), "template", "spec.template")
    return {**wishes_of(document), **topology_of(template, "spec.template"), **_started_by_us(document)}


def wishes_of(document: Document) -> dict[str, Any]:
    """Queue, priority and time limit of the object itself."""
    metadata = mapping(document, "metadata")
    marks = {**texts(metadata, "annotations"), **texts(metadata, "labels")}
    for key in sorted(marks):
        if key.startswith(GROUP) and key not in _TAKEN:
            raise ManifestError("NotTaken", "Muster cannot honour this wish of Kueue's", f"metadata.labels.{key}")
    wishes: dict[str, Any] = {"queue": marks[QUEUE]}
    if MAX_RUN in marks:
        wishes["max_run_s"] = integer(marks[MAX_RUN], f"metadata.labels.{MAX_RUN}")
    if PRIORITY_CLASS in marks and f"{PREFIX}priority" not in marks:
        detail = f"what {marks[PRIORITY_CLASS]!r} is worth differs by cluster; say {PREFIX}priority as a number"
        raise ManifestError("NotTaken", detail, f"metadata.labels.{PRIORITY_CLASS}")
    return wishes


def topology_of(template: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The topology level that a pod template asks for: a node label key, as here."""
    notes = texts(optional(template, "metadata", f"{where}.metadata"), "annotations")
    levels = {"required": notes.get(TOPOLOGY_REQUIRED), "preferred": notes.get(TOPOLOGY_PREFERRED)}
    found = {name: level for name, level in levels.items() if level is not None}
    return {"topology": found} if found else {}


def slices_of(template: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The slices that a pod template asks for, as a role's topology: so many pods each in one domain of a level."""
    notes = texts(optional(template, "metadata", f"{where}.metadata"), "annotations")
    if SLICE_REQUIRED not in notes and SLICE_SIZE not in notes:
        return {}
    for key, other in ((SLICE_REQUIRED, SLICE_SIZE), (SLICE_SIZE, SLICE_REQUIRED)):
        if key not in notes:
            raise ManifestError("MissingField", f"{other} needs it", f"{where}.metadata.annotations.{key}")
    size = integer(notes[SLICE_SIZE], f"{where}.metadata.annotations.{SLICE_SIZE}")
    return {"topology": {"required": notes[SLICE_REQUIRED], "slice": size}}


def levels_of_role(template: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What one of several pod templates asks for, as the topology of its role. A level for the role as a whole and one
    for its slices cannot both be had."""
    whole, slices = topology_of(template, where), slices_of(template, where)
    if whole and slices:
        detail = f"a role of several has levels or slices, not both: ask for one level of the whole group by {PREFIX}"
        raise ManifestError("NotTaken", f"{detail}topology-required", f"{where}.metadata.annotations.{SLICE_REQUIRED}")
    return whole or slices


def _started_by_us(document: Document) -> dict[str, Any]:
    """Kueue's users write `suspend: true` so that Kueue starts the Job; here that is the queue's part."""
    suspend = optional(document, "spec", "spec").get("suspend")
    return {"suspend": False} if suspend is True else {}


def without_kueue(document: Document) -> Document:
    """The object and its pod template without Kueue's marks."""
    if not labelled(document):
        return document
    spec = optional(document, "spec", "spec")
    if "template" in spec:
        spec = {**spec, "template": unmarked(optional(spec, "template", "spec.template"))}
    return {**unmarked(document), "spec": spec}


def unmarked(thing: Mapping[str, Any]) -> dict[str, Any]:
    """An object or template whose metadata carries nothing of Kueue's."""
    metadata = thing.get("metadata")
    if not isinstance(metadata, dict):
        return dict(thing)
    kept = {
        key: {mark: value for mark, value in texts(metadata, key).items() if not mark.startswith(GROUP)}
        for key in ("labels", "annotations")
        if metadata.get(key) is not None
    }
    return {**thing, "metadata": {**metadata, **kept}}
