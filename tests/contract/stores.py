"""The blob stores that pass the contract suite. A new backend is one more line here."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from storage.blob import BlobStore
from storage.open import open_store

STORES: Final[dict[str, Callable[[Path], BlobStore]]] = {
    "directory": lambda folder: open_store(f"file://{folder}/store"),
    "memory": lambda _folder: open_store("memory:"),
    "sqlite": lambda folder: open_store(f"sqlite:///{folder}/store.db"),
}
