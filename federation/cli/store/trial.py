"""The store's own self-test, on a store that may hold a journal already: it uses names of its own."""

from __future__ import annotations

from storage.open import open_store
from storage.selftest import selftest


def tested(url: str, *, nonce: str) -> None:
    """Return if the store at `url` kept every promise; raises what `storage.selftest` raises. `nonce` is fresh."""
    store = open_store(url)
    try:
        selftest(store, nonce=nonce)
    finally:
        store.close()
