"""Who calls and what they may do: principals from a token file, and the one authorisation hook.

Denied by default. On loopback the token file in the data folder is the only credential; OIDC replaces `principal_of`
later without touching the routes.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum, unique
from pathlib import Path
from typing import Final

from federation.server.problems import ProblemError

TOKEN_BYTES: Final = 32
TOKENS_FILE: Final = "tokens.json"
PRINCIPALS_MAX: Final = 10_000
CREDENTIAL: Final = "Authorization"  # the field to change where the caller may not do it at all
ASK: Final = "ask an operator for it, or use another token"


@unique
class Verb(StrEnum):
    VIEW = "view"
    SUBMIT = "submit"
    OPERATE = "operate"
    FORCE = "force"


@dataclass(frozen=True, slots=True)
class Principal:
    """`queues` bounds submit; `cluster` is set for agents, which may do nothing but speak for it."""

    name: str
    verbs: frozenset[Verb] = frozenset()
    queues: tuple[str, ...] = ("*",)
    cluster: str = ""


class TokenFileError(Exception):
    """The token file cannot be used; the message names it and what is wrong."""


@dataclass(frozen=True, slots=True)
class Principals:
    """Known callers by the SHA-256 of their token, so that neither memory dumps nor logs hold tokens."""

    by_digest: dict[bytes, Principal]

    def of_token(self, token: str) -> Principal | None:
        digest = hashlib.sha256(token.encode()).digest()
        for known, principal in self.by_digest.items():
            if hmac.compare_digest(known, digest):
                return principal
        return None


def load(path: Path) -> Principals:
    """Principals of a token file; TokenFileError if it is missing, open to others or malformed."""
    try:
        mode = path.stat().st_mode
        entries = json.loads(path.read_text())["principals"]
        principals = {_digest(entry): _principal(entry) for entry in entries}
    except FileNotFoundError:
        raise TokenFileError(f"{path}: no token file; `muster up` makes one") from None
    except (ValueError, KeyError, TypeError) as error:
        raise TokenFileError(f"{path}: {error}") from error
    if mode & 0o077:
        raise TokenFileError(f"{path}: readable by others (mode {mode & 0o777:o}); chmod 600 it")
    if len(principals) > PRINCIPALS_MAX:
        raise TokenFileError(f"{path}: {len(principals)} principals, at most {PRINCIPALS_MAX}")
    return Principals(principals)


def _digest(entry: dict[str, str]) -> bytes:
    if "token_sha256" in entry:
        return bytes.fromhex(entry["token_sha256"])
    return hashlib.sha256(entry["token"].encode()).digest()


def _principal(entry: dict[str, object]) -> Principal:
    verbs, queues = entry.get("verbs", []), entry.get("queues", ["*"])
    if not isinstance(verbs, list) or not isinstance(queues, list):
        raise TypeError(f"principal {entry.get('name')!r}: verbs and queues are lists")
    return Principal(
        str(entry["name"]),
        frozenset(Verb(verb) for verb in verbs),
        tuple(str(queue) for queue in queues),
        str(entry.get("cluster", "")),
    )


def make(path: Path, clusters: Sequence[str]) -> None:
    """Write a fresh token file: one operator and one principal per cluster's agent. Only its owner may read it."""
    everything = [verb.value for verb in Verb]
    entries: list[dict[str, object]] = [
        {"name": "operator", "token": secrets.token_urlsafe(TOKEN_BYTES), "verbs": everything, "queues": ["*"]}
    ]
    entries += [
        {"name": f"agent:{cluster}", "token": secrets.token_urlsafe(TOKEN_BYTES), "cluster": cluster}
        for cluster in clusters
    ]
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        json.dump({"principals": entries}, file, indent=1)


def authorise(principal: Principal, verb: Verb, queue: str | None = None) -> None:
    """The one hook: returns if `principal` may, raises a 403 problem that says what is missing otherwise."""
    if verb not in principal.verbs:
        raise ProblemError(403, "Forbidden", f"{principal.name} lacks the verb {verb.value}", CREDENTIAL, ASK)
    if queue is not None and "*" not in principal.queues and queue not in principal.queues:
        detail = f"{principal.name} may not use queue {queue!r}, only {', '.join(principal.queues)}"
        raise ProblemError(403, "ForbiddenQueue", detail, "queue", "submit to one of your queues")


def authorise_agent(principal: Principal, cluster: str) -> None:
    """An agent speaks for its own cluster only (S13)."""
    if principal.cluster != cluster:
        detail = f"{principal.name} does not speak for cluster {cluster!r}"
        raise ProblemError(403, "Forbidden", detail, "cluster", "use the credential of that cluster's agent")
