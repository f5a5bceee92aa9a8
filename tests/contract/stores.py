"""The blob stores that pass the contract suite. A new backend is one more line here."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.servers.kinds import Servers

ADDRESSES: Final[dict[str, Callable[[Servers, Path], str]]] = {
    "azurite": lambda servers, _folder: servers.new_store("azurite"),
    "directory": lambda _servers, folder: f"file://{folder}/store",
    "etcd": lambda servers, _folder: servers.new_store("etcd"),
    "loopback": lambda servers, _folder: servers.new_store("loopback"),
    "memory": lambda _servers, _folder: "memory:",
    "ministack": lambda servers, _folder: servers.new_store("ministack"),
    "moto": lambda servers, _folder: servers.new_store("moto"),
    "sqlite": lambda _servers, folder: f"sqlite:///{folder}/store.db",
}
"""Addresses of empty stores."""
