"""Backups, moves and upgrades of whole stores, and what is told of them."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec

from federation.cli.errors import CliError, ExitCode
from federation.cli.store.failures import told
from federation.core.leases import lease_name
from federation.protocol.messages import UnreadableMessageError, decode_lease
from storage.backup import back_up
from storage.blob import BlobName, BlobStore
from storage.errors import CorruptError
from storage.moving import move
from storage.open import open_existing, open_store
from storage.reading import list_names, read_root
from storage.retry import RetryingStore
from storage.root import FORMAT, FORMAT_FIRST
from storage.selftest import selftest
from storage.upgrade import upgrade
from storage.verify import verify

ANSWER_S: Final = 3.0
CLUSTERS_SHOWN_MAX: Final = 20  # of those in the way: enough to see which kind they are
SERVERS_PREFIX: Final = "servers/"  # `federation.server.peers` writes there

Say = Callable[[str], None]


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    kind: str = "StoreBackup"
    place: str
    lineage: str
    made_ms: int
    first_seq: int
    last_seq: int
    entries: int
    copied: int
    head_digest: str


class Migration(msgspec.Struct, frozen=True, kw_only=True):
    kind: str = "StoreMigration"
    source: str
    target: str
    lineage: str
    first_seq: int
    last_seq: int
    leases: int
    head_digest: str


class Upgrade(msgspec.Struct, frozen=True, kw_only=True):
    kind: str = "StoreUpgrade"
    before: int
    after: int


@contextmanager
def writing(url: str, *, existing: bool) -> Iterator[BlobStore]:
    """The store at `url`, made where absent unless `existing`; its operations are repeated when they fail."""
    if url.startswith("memory:"):
        raise CliError(f"{url} is gone when this command ends", "name a place that stays", ExitCode.REFUSED)
    with told():
        store = RetryingStore(open_existing(url) if existing else open_store(url))
        try:
            yield store
        finally:
            store.close()


def backed_up(source: BlobStore, place_url: str, *, made_ms: int, say: Say) -> Backup:
    """A backup of `source` at `place_url`, complete when this returns."""
    with writing(place_url, existing=False) as place:
        done = back_up(source, place, made_ms=made_ms, progress=say)
    manifest = done.manifest
    return Backup(
        place=place_url,
        lineage=manifest.lineage,
        made_ms=manifest.made_ms,
        first_seq=manifest.first_seq,
        last_seq=manifest.last_seq,
        entries=manifest.entries,
        copied=done.copied,
        head_digest=manifest.head_digest.hex(),
    )


def migrated(source_url: str, target_url: str, *, nonce: str, say: Say) -> Migration:
    """The journal goes on at `target_url`, and every server refuses `source_url`."""
    if source_url == target_url:
        raise CliError("FROM and TO are the same store", "name another one", ExitCode.USAGE)
    with writing(source_url, existing=True) as source, writing(target_url, existing=False) as target:
        selftest(target, nonce=nonce)
        done = move(source, target, target_url=target_url, nonce=nonce, progress=say)
        say("proving the new store")
        found = verify(target)
        if found.bad is not None or found.head_digest != done.head_digest:
            raise found.bad or CorruptError("journal", "the copy does not end as the original does")
    return Migration(
        source=source_url,
        target=target_url,
        lineage=done.lineage,
        first_seq=done.first_seq,
        last_seq=done.last_seq,
        leases=done.leases,
        head_digest=done.head_digest.hex(),
    )


def upgraded(url: str, *, nonce: str, older_agents: bool = False) -> Upgrade:
    """The format that may be written is this version's; CliError while a server lives that cannot read it, and, without
    `older_agents`, while the agent of some cluster does not understand it."""
    with writing(url, existing=True) as store:
        root = read_root(store)
        for name, reads in _living(store):
            if reads < FORMAT:
                what = f"server {name} lives and reads formats up to {reads}, not {FORMAT}"
                raise CliError(what, "upgrade or stop it first", ExitCode.REFUSED)
        older = [one for one in _agents(store, root.lineage) if one[1] < FORMAT]
        if older and root.format < FORMAT and not older_agents:
            raise _too_old(older)
        done = upgrade(store, nonce=nonce)
    return Upgrade(before=done.before, after=done.after)


def _living(store: BlobStore) -> Iterator[tuple[str, int]]:
    """Names of the servers that answer at the addresses they wrote, and the highest format each says it reads."""
    for blob_name in list_names(store, SERVERS_PREFIX):
        url = _address(store, blob_name)
        answer = _readiness(url) if url else None
        if answer is not None:
            reads = answer.get("format")
            yield blob_name.removeprefix(SERVERS_PREFIX), reads if isinstance(reads, int) else FORMAT_FIRST


def _agents(store: BlobStore, lineage: str) -> Iterator[tuple[str, int]]:
    """Clusters whose agent ever renewed its lease, and the newest format that it said it understands. Those that are
    fenced, too: they may come back. A lease that cannot be read says nothing."""
    for name in list_names(store, lease_name(lineage, "")):
        blob = store.get(name)
        try:
            body = decode_lease(blob.data) if blob is not None else None
        except UnreadableMessageError:
            continue
        if body is not None and body.renewal_nonce:
            yield body.cluster, body.understands


def _too_old(older: list[tuple[str, int]]) -> CliError:
    shown = ", ".join(f"{name} (up to {understands})" for name, understands in older[:CLUSTERS_SHOWN_MAX])
    rest = f" and {len(older) - CLUSTERS_SHOWN_MAX} more" if len(older) > CLUSTERS_SHOWN_MAX else ""
    return CliError(
        f"agents that do not understand format {FORMAT}: {shown}{rest}",
        "upgrade them first, or add --older-agents: what came with the format does not happen in their clusters",
        ExitCode.REFUSED,
    )


def _address(store: BlobStore, name: BlobName) -> str:
    blob = store.get(name)
    try:
        url = str(json.loads(blob.data)["url"]) if blob else ""
    except (ValueError, KeyError, TypeError):
        return ""
    return url if url.startswith(("http://", "https://")) else ""


def _readiness(url: str) -> dict[str, object] | None:
    """What a server says of itself, also while it is not ready; None where nobody answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/readyz", timeout=ANSWER_S) as answer:
            data = answer.read()
    except urllib.error.HTTPError as error:
        data = error.read()
    except OSError:
        return None
    try:
        found = json.loads(data)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
