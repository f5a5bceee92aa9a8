"""States as values, for comparing them; and one step from a state to its shards and back."""

from __future__ import annotations

from federation.core.dump import Dump, NamedShard
from federation.core.load import Loader
from federation.core.state import State
from storage.root import FORMAT
from tests.world.pictures import facts

__all__ = ["facts", "loaded", "shards_of"]


def shards_of(state: State, *, store_format: int = FORMAT) -> list[NamedShard]:
    dump = Dump(state, store_format=store_format)
    shards: list[NamedShard] = []
    while not dump.done:
        shards += dump.step(1)
    return shards


def loaded(lineage: str, shards: list[NamedShard]) -> State:
    loader = Loader(lineage)
    for shard in shards:
        loader.take(shard.name, shard.payload)
    return loader.finish("snapshot")
