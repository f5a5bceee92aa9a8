"""The token file of a data folder: who may call, and what each may do. What they try to do is judged in `auth`."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum, unique
from pathlib import Path
from typing import Final

TOKEN_BYTES: Final = 32
TOKENS_FILE: Final = "tokens.json"
PRINCIPALS_MAX: Final = 10_000
FIELDS: Final = frozenset({"name", "token", "token_sha256", "verbs", "queues", "cluster"})
_SHA256: Final = re.compile(r"[0-9A-Fa-f]{64}")


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
        # Looked up by digest: how long that takes tells nothing about a token, for nobody can steer its SHA-256.
        return self.by_digest.get(hashlib.sha256(token.encode()).digest())


def load(path: Path) -> Principals:
    """Principals of a token file; TokenFileError if it is missing, open to others or malformed."""
    try:
        mode = path.stat().st_mode
        principals = _read(json.loads(path.read_text()))
    except FileNotFoundError:
        raise TokenFileError(f"{path}: no token file; `muster up` makes one") from None
    except ValueError as error:
        raise TokenFileError(f"{path}: {error}") from error
    if mode & 0o077:
        raise TokenFileError(f"{path}: readable by others (mode {mode & 0o777:o}); chmod 600 it")
    if len(principals) > PRINCIPALS_MAX:
        raise TokenFileError(f"{path}: {len(principals)} principals, at most {PRINCIPALS_MAX}")
    return Principals(principals)


def _read(document: object) -> dict[bytes, Principal]:
    """ValueError names the entry and what is wrong with it. No token is shown."""
    entries = document.get("principals") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError('want {"principals": [...]}')
    principals: dict[bytes, Principal] = {}
    for index, entry in enumerate(entries):
        where = f"principals[{index}]"
        if not isinstance(entry, dict):
            raise ValueError(f"{where} is not a mapping")
        if unknown := sorted(entry.keys() - FIELDS):
            raise ValueError(f"{where}: unknown field {unknown[0]!r}; known: {', '.join(sorted(FIELDS))}")
        digest, principal = _digest(entry, where), _principal(entry, where)
        if digest in principals:  # or one of them would get the other's rights
            raise ValueError(f"{where}: {principal.name} has the token of {principals[digest].name}")
        principals[digest] = principal
    return principals


def _digest(entry: Mapping[str, object], where: str) -> bytes:
    known, token = entry.get("token_sha256"), entry.get("token")
    if isinstance(known, str) and _SHA256.fullmatch(known):
        return bytes.fromhex(known)
    if known is not None:
        raise ValueError(f"{where}: token_sha256 is not 64 hexadecimal digits")
    if not isinstance(token, str) or not token or any(not "!" <= char <= "~" for char in token):
        raise ValueError(f"{where}: token is not one word of ASCII characters")
    return hashlib.sha256(token.encode()).digest()


def _principal(entry: Mapping[str, object], where: str) -> Principal:
    name, cluster = entry.get("name"), entry.get("cluster", "")
    verbs, queues = entry.get("verbs", []), entry.get("queues", ["*"])
    if not isinstance(name, str) or not name:
        raise ValueError(f"{where}: name is missing")
    if not isinstance(cluster, str):
        raise ValueError(f"{where}: cluster is not a name")
    for field, words in (("verbs", verbs), ("queues", queues)):
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError(f"{where}: {field} is not a list of words")
    assert isinstance(verbs, list)
    assert isinstance(queues, list)
    strange = sorted(set(verbs) - set(Verb))
    if strange:
        raise ValueError(f"{where}: unknown verb {strange[0]!r}; known: {', '.join(Verb)}")
    if cluster and verbs:
        raise ValueError(f"{where}: {name} is the agent of {cluster}, which has no verbs")
    return Principal(name, frozenset(map(Verb, verbs)), tuple(queues), cluster)


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
