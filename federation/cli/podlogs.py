"""The pods of a placed group and their logs, read from the API server of a local fleet's cluster.

The federation server has no way to a member's pods, on purpose: a real cluster's logs are read with its own
credentials.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote, urlencode

from federation.cli.errors import CliError, ExitCode

LABEL_TOKEN: Final = "muster.io/token"  # noqa: S105 - a placement's token, no secret
LABEL_RANK: Final = "muster.io/rank"
RANK_CHARS_MAX: Final = 9
TIMEOUT_S: Final = 10.0
FOLLOW_TIMEOUT_S: Final = 3_600.0  # a pod may be silent for long


def pods_of(kube_url: str, namespace: str, token: str) -> list[tuple[int, str]]:
    """(rank, name) of the pods of one placement, by rank."""
    query = urlencode({"labelSelector": f"{LABEL_TOKEN}={token}"})
    path = f"/api/v1/namespaces/{quote(namespace)}/pods?{query}"
    with _open(f"{kube_url}{path}", TIMEOUT_S) as answer:
        items: list[dict[str, Any]] = json.load(answer)["items"]
    return sorted((_rank(item["metadata"]), item["metadata"]["name"]) for item in items)


def _rank(metadata: dict[str, Any]) -> int:
    """API servers before 1.35 have it in the annotation only. Anybody who may write pods writes there what he likes."""
    written = metadata["labels"].get(LABEL_RANK) or (metadata.get("annotations") or {}).get(LABEL_RANK) or "0"
    return int(written) if written.isascii() and written.isdigit() and len(written) <= RANK_CHARS_MAX else 0


def lines_of(kube_url: str, namespace: str, pod: str, *, follow: bool) -> Iterator[str]:
    """The pod's log, line by line; with `follow` until the pod has ended."""
    query = "?follow=true" if follow else ""
    url = f"{kube_url}/api/v1/namespaces/{quote(namespace)}/pods/{quote(pod)}/log{query}"
    with _open(url, FOLLOW_TIMEOUT_S if follow else TIMEOUT_S) as answer:
        for line in answer:
            yield line.decode(errors="replace").rstrip("\n")


def _open(url: str, timeout_s: float) -> Any:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback: no proxy is asked
    try:
        return opener.open(url, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        code = ExitCode.NOT_FOUND if error.code == 404 else ExitCode.ERROR
        raise CliError(f"{url}: {error.code} {error.reason}", "see `muster describe`", code) from error
    except OSError as error:
        remedy = "is its API server up? see `muster doctor`"
        raise CliError(f"{url} cannot be reached: {error}", remedy, ExitCode.UNAVAILABLE) from error
