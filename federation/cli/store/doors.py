"""Two doors to a store: its address, or the server that has it open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from federation.cli.session import Session
from federation.cli.store.failures import told
from federation.cli.store.remote import RemoteStore
from storage.blob import BlobStore
from storage.open import open_existing


@contextmanager
def reading(session: Session, url: str) -> Iterator[BlobStore]:
    """The store at `url`, or without one the running server's; errors of stores leave as CliErrors."""
    with told():
        store: BlobStore = open_existing(url) if url else RemoteStore(session.client)
        try:
            yield store
        finally:
            store.close()
