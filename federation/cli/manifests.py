"""Manifests from files and standard input: read strictly, checked here as the server will check them again."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from federation.cli.errors import CliError, ExitCode
from federation.manifests import dialects
from federation.manifests.bundles import bundled
from federation.manifests.faults import BAD_MANIFEST, Fault, fault_of
from federation.manifests.strict import MANIFEST_BYTES_MAX, ManifestError, read_yaml
from placement.model import PodGroup, Queue
from placement.requests import gang_request


@dataclass(frozen=True, slots=True)
class Manifest:
    """One document as written, what it means, and where it stands."""

    document: dict[str, Any]
    meaning: PodGroup | Queue
    where: str


def read(names: tuple[str, ...], namespace: str) -> list[Manifest]:
    """Every manifest of the files (`-` is standard input), in order; a PodGroup without a namespace gets `namespace`.
    CliError names file, document and field of the first that cannot be taken."""
    if not names:
        raise CliError("no manifest is named", "give one with -f FILE, or -f - for standard input", ExitCode.USAGE)
    return [manifest for name in names for manifest in _read_file(name, namespace)]


def _read_file(name: str, namespace: str) -> list[Manifest]:
    shown = "standard input" if name == "-" else name
    try:
        documents = read_yaml(_text(name))
    except ManifestError as error:
        raise _refused(shown, fault_of(error)) from error
    try:
        found = bundled([_in_namespace(document, namespace) for document in documents])
    except ManifestError as error:
        raise _refused(shown, fault_of(error)) from error
    many = len(documents) > 1
    return [_read_one(document, f"{shown}: document {index + 1}" if many else shown) for index, document in found]


def _text(name: str) -> str:
    try:
        if name == "-":
            if sys.stdin is None:
                raise CliError("standard input is closed", "give a file with -f", ExitCode.USAGE)
            data = sys.stdin.buffer.read(MANIFEST_BYTES_MAX + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(MANIFEST_BYTES_MAX + 1)
        return data.decode()
    except UnicodeDecodeError as error:
        raise CliError(f"{name}: not UTF-8 at byte {error.start}", "save it as UTF-8", ExitCode.REFUSED) from error
    except OSError as error:
        raise CliError(f"{name}: {error.strerror}", "correct -f", ExitCode.USAGE) from error


def _read_one(document: dict[str, Any], where: str) -> Manifest:
    try:
        meaning = dialects.read(document)
        if isinstance(meaning, PodGroup):
            gang_request(meaning)  # what a pod asks for can be read from its template
        return Manifest(document, meaning, where)
    except BAD_MANIFEST as error:
        raise _refused(where, fault_of(error)) from error


def _in_namespace(document: dict[str, Any], namespace: str) -> dict[str, Any]:
    if document.get("kind") == "Queue":
        return document
    if "kind" not in document:
        return {"namespace": namespace, **document}
    if document.get("kind") == "List" and isinstance(document.get("items"), list):
        items = [_in_namespace(item, namespace) if isinstance(item, dict) else item for item in document["items"]]
        return {**document, "items": items}
    metadata = document.get("metadata")
    return {**document, "metadata": {"namespace": namespace, **metadata}} if isinstance(metadata, dict) else document


def _refused(where: str, fault: Fault) -> CliError:
    return CliError(
        f"{where}: {fault.detail} ({fault.reason})", f"{fault.remedy}; nothing was submitted", ExitCode.REFUSED
    )
