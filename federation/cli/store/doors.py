"""Two doors to a store: its address, or the server that has it open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from federation.cli.session import Session
from federation.cli.store.failures import told
from federation.cli.store.remote import RemoteStore
from storage.backup import MANIFEST_NAME, view
from storage.blob import BlobStore
from storage.open import open_existing
from storage.root import ROOT_NAME


@contextmanager
def reading(session: Session, url: str) -> Iterator[BlobStore]:
    """The store at `url` (a backup's, if it holds one), or without one the running server's; errors of stores leave as
    CliErrors."""
    with told():
        store: BlobStore = open_existing(url) if url else RemoteStore(session.client)
        try:
            yield _backup_or_itself(store) if url else store
        finally:
            store.close()


def _backup_or_itself(store: BlobStore) -> BlobStore:
    """A place with a backup and no journal of its own stands for the backup."""
    if store.get(ROOT_NAME) is None and view(store).get(MANIFEST_NAME) is not None:
        return view(store)
    return store
