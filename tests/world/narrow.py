"""`python -m tests.world.narrow …`: the same world, whose limits are so small that each seed meets them.

What happens to one fleet in a thousand, where a queue is full, a cache is emptied or a step ends in the midst of
things, happens here all the time. Numbers are changed in the source, before anybody has imported them.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import re
import sys
from collections.abc import Mapping, Sequence
from types import CodeType, ModuleType
from typing import Final

NARROW: Final[Mapping[str, Mapping[str, float]]] = {
    "cluster_agents.core.calls": {"FOLLOWING_MAX": 2},
    "cluster_agents.core.config": {"STARTS_IN_FLIGHT_MAX": 2, "OTHERS_IN_FLIGHT_MAX": 3},
    "cluster_agents.core.guard": {"ASKS_REMEMBERED_MAX": 2},
    "cluster_agents.core.intake": {"SPECS_AHEAD": 1, "SPECS_MAX": 2},
    "cluster_agents.core.objects": {"DEPARTED_MAX": 50, "QUANTITIES_CACHED_MAX": 2},
    "cluster_agents.core.roomy": {"LOOKS_PER_REPORT_MAX": 1},
    "cluster_agents.core.roster": {"RECALLS_MAX": 1},
    "cluster_agents.core.takeover": {"PAGE_ITEMS": 2},
    "cluster_agents.simkube.apiserver.server": {"WATCH_EVENTS_MAX": 2},
    "cluster_agents.simkube.apiserver.watch": {"EVENTS_PER_POLL_MAX": 2},
    "cluster_agents.core.desired": {"PARTS_MAX": 100_000},  # a part is one group here
    "federation.core.books": {"CLASSES_KEPT_MAX": 2, "ENDED_PER_CLUSTER_MAX": 2, "SORTED_IN_SHARE": 1},
    "federation.core.desired": {"SPEC_BYTES_MAX": 300, "SPECS_BYTES_MAX": 700},
    "federation.core.dump": {"SHARD_RAW_BYTES": 300, "SHARDS_PER_STEP": 1},
    "federation.core.growing": {
        "GROWTHS_PER_CYCLE_MAX": 1,
        "LOOKS_PER_CYCLE_MAX": 1,
        "TRIES_PER_CYCLE_MAX": 1,
        "WAITING_KINDS_MAX": 2,
    },
    "federation.core.history": {"HISTORY_PER_GROUP_MAX": 3},
    "federation.core.leader": {"QUEUE_MAX": 4},
    "federation.core.recovering": {"RECREATED_PER_BATCH_MAX": 1, "STOPPED_SHOWN_MAX": 1},
    "federation.core.refusals": {"REMEMBERED_MAX": 2},
    "federation.core.relay": {"RELAYED_MAX": 3},
    "federation.core.snapshots": {"ITEMS_PER_STEP": 3, "STEP_EVERY_S": 0.5, "BACKLOG_MAX": 1, "MARKS_MAX": 2},
    "federation.core.stored": {"PACKED_FROM_BYTES": 1, "TEXTS_BYTES_MAX": 2_000},
    "federation.core.tape_store": {"IN_FLIGHT_MAX": 1, "REEL_BYTES": 2_000},
    "federation.core.taped": {"NODES_PER_ITEM_MAX": 2},
    "federation.core.views": {"TOLD_MAX": 1},
    "federation.core.wishes": {"WISHES_KEPT_MAX": 2},
    "federation.protocol.messages": {"CLAIMS_MAX": 1, "DESIRED_GROUPS_PER_ANSWER_MAX": 1, "ROOMY_MAX": 1},
    "federation.protocol.parts": {
        "GONE_BESIDE_ROWS_MAX": 1,
        "GONE_PER_PART_MAX": 1,
        "ROWS_PER_PART_MAX": 3,
        "TOKENS_BESIDE_ROWS_MAX": 1,
        "TOKENS_PER_PART_MAX": 3,
        "PARTS_MAX": 1_000,  # a part is a few rows here
    },
    "placement.domains": {"FIRST_ROOM": 1},
    "placement.elastic": {"SIZES_KEPT_MAX": 2},
    "placement.fixed": {"KEPT_MAX": 1},
    "placement.gain": {"CELLS_FIRST": 1, "COSTS_KEPT_MAX": 2, "FEW_NODES": 2, "STATES_FIRST": 1, "VERY_FEW_NODES": 1},
    "placement.layout": {"CACHED_LABELS_MAX": 1},
    "placement.memory": {"ASKED_MAX": 2, "LISTS_MAX": 1, "SHAPES_MAX": 2, "TRACKED_MAX": 2},
    "placement.mix": {"COUNTED_MAX": 8, "KINDS_MAX": 3},
    "placement.node_order": {"TABLES_MAX": 1},
    "placement.repacking": {"MOVED_MAX": 2, "SEARCHES_MAX": 4, "WORK_MAX": 6},
    "placement.rows": {"FIRST_ROOM": 1},
    "placement.sites": {"DATA_KEPT_MAX": 1},
    "placement.waiting": {"CLASSES_KEPT_MAX": 2},
    "storage.ahead": {"AHEAD_MAX": 1},
    "storage.entry": {"RECORDS_PER_ENTRY_MAX": 12},  # the children of a spread group land together
    "storage.gc": {"IN_FLIGHT_MAX": 1},
    "storage.journal": {"UNCONFIRMED_MAX": 1},
    "storage.snapshot_reader": {"IN_FLIGHT_MAX": 1},
    "storage.snapshot_writer": {"IN_FLIGHT_MAX": 1},
    "storage.tape_state": {"IN_FLIGHT_MAX": 1},
}


def narrowed(source: str, limits: Mapping[str, float]) -> str:
    """The source with these limits in place of its own; AssertionError for one that it does not have."""
    for name, limit in limits.items():
        line = re.compile(rf"^{name}: Final = .*$", re.MULTILINE)
        source, found = line.subn(f"{name}: Final = {limit}", source)
        assert found == 1, f"{name} is there {found} times"
    return source


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles each time: what is cached has the limits of the source."""

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path).decode()
        return compile(narrowed(source, NARROW[fullname]), self.path, "exec", dont_inherit=True)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target) if fullname in NARROW else None
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(fullname, spec.origin)
        return spec


def main() -> int:
    assert not NARROW.keys() & sys.modules.keys(), "somebody has imported the limits as they are"
    sys.meta_path.insert(0, _Finder())
    from tests.world.__main__ import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
