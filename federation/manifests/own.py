"""Our own manifests: `muster.io/v1` PodGroup and Queue, with Kubernetes' metadata and spec."""

from __future__ import annotations

from typing import Any

from federation.manifests.strict import Document, ManifestError
from placement.model import PodGroup, Queue


def read_group(document: Document) -> PodGroup:
    metadata = take_metadata(document, {"name", "namespace", "labels"})
    return PodGroup.model_validate(_joined(metadata, _spec(document), "PodGroup"))


def read_queue(document: Document) -> Queue:
    metadata = take_metadata(document, {"name"})
    return Queue.model_validate(_joined(metadata, _spec(document), "Queue"))


def take_metadata(document: Document, allowed: set[str]) -> dict[str, Any]:
    """`metadata` reduced to nothing but known fields; an unknown one is an error that names it."""
    unknown = sorted(set(document) - {"apiVersion", "kind", "metadata", "spec", "status"})
    if unknown:
        raise ManifestError("UnknownField", f"unknown field {unknown[0]!r}", unknown[0])
    metadata = document.get("metadata")
    if not isinstance(metadata, dict):
        raise ManifestError("MissingField", "metadata is a mapping with a name", "metadata")
    unknown = sorted(set(metadata) - allowed)
    if unknown:
        raise ManifestError("UnknownField", f"unknown field {unknown[0]!r}", f"metadata.{unknown[0]}")
    return dict(metadata)


def _spec(document: Document) -> dict[str, Any]:
    spec = document.get("spec", {})
    if not isinstance(spec, dict):
        raise ManifestError("BadType", "spec is a mapping", "spec")
    return spec


def _joined(metadata: dict[str, Any], spec: dict[str, Any], kind: str) -> dict[str, Any]:
    twice = sorted(set(metadata) & set(spec))
    if twice:
        raise ManifestError("UnknownField", f"{twice[0]!r} of a {kind} belongs in metadata", f"spec.{twice[0]}")
    return {**metadata, **spec}
