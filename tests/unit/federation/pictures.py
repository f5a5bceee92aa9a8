"""States as values, for comparing them; and one step from a state to its shards and back."""

from __future__ import annotations

from typing import Any

from federation.core.dump import Dump, NamedShard
from federation.core.load import Loader
from federation.core.state import State
from storage.root import FORMAT


def facts(state: State) -> dict[str, Any]:
    """Everything a state knows, with the order of what has one."""
    return {
        "lineage": state.lineage,
        "head": state.head,
        "clock_ms": state.clock_ms,
        "recovering_since": state.recovering_since,
        "groups": list(state.groups.items()),
        "clusters": [
            (row, list(row.homes.items()), list(row.tokens.items()), list(row.ended.items()))
            for row in state.clusters.values()
        ],
        "queues": list(state.queues.items()),
        "names": state.names,
        "names_ended": state.names_ended,
        "spreads": state.spreads,
        "beside": state.beside,
        "requests": list(state.requests.items()),
        "pending": state.pending,
        "finished": list(state.finished),
        "specs": state.specs,
        "leaving": (list(state.leaving.items()), state.leaving_bytes),
        "parts": (list(state.parts), state.parts_count),
    }


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
