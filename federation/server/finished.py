"""Groups whose time in memory is over, for readers: those that wait for the archive, and those in its parts.

Reads the store beside the loop. Which part may hold a group is known from the state, so a look costs a read or two.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from federation.core.archive import parts_with, rows_of
from federation.core.rows import GroupRow
from federation.core.shards import UnreadableShardError
from federation.core.state import State
from federation.server.problems import ProblemError
from placement.model import GroupUid
from storage.blob import BlobStore
from storage.errors import CorruptError, UnavailableError, UnsupportedFormatError
from storage.finished import part_name

PARTS_IN_MEMORY_MAX: Final = 32  # of those read last: people page, and look at one group several times; 10 MiB
PARTS_PER_PAGE_MAX: Final = 16  # read for one page of a listing: a filter that nothing matches must end, too
PART_SHIFT: Final = 20  # a mark is the part's number and, in so many bits, the row's place in it

log = structlog.get_logger()

Matches = Callable[[GroupRow], bool]


@dataclass(frozen=True, slots=True)
class Page:
    """`mark` asks for the next page; 0 after the last. A page may be empty although more follow."""

    rows: list[GroupRow]
    mark: int


@dataclass(slots=True)
class FinishedGroups:
    store: BlobStore
    state: Callable[[], State]
    _read: OrderedDict[int, list[GroupRow]] = field(default_factory=OrderedDict)

    async def find(self, ref: str, namespace: str) -> GroupRow | None:
        """The group of this uid, or the newest of this name that left memory."""
        state = self.state()

        def is_it(row: GroupRow) -> bool:
            return ref in {row.uid, row.name} and (row.uid == ref or row.namespace == namespace)

        waiting = state.leaving.get(GroupUid(ref)) or next(filter(is_it, reversed(state.leaving.values())), None)
        if waiting is not None:
            return waiting
        for number, digest in parts_with(state, ref, namespace):
            found = next(filter(is_it, reversed(await self._part(number, digest))), None)
            if found is not None:
                return found
        return None

    async def page(self, mark: int, limit: int, matches: Matches) -> Page:
        """The newest first, from where the last page ended."""
        state = self.state()
        newest, oldest = state.parts_count + 1, state.parts[0].part if state.parts else 1
        number, end = (mark >> PART_SHIFT, mark & (1 << PART_SHIFT) - 1) if mark else (newest, len(state.leaving))
        found: list[GroupRow] = []
        digests = {part.part: part.digest for part in state.parts}
        for _ in range(PARTS_PER_PAGE_MAX):
            rows = list(state.leaving.values()) if number >= newest else await self._part(number, digests.get(number))
            for index in reversed(range(min(end, len(rows)))):
                if matches(rows[index]):
                    found.append(rows[index])
                    if len(found) == limit:
                        return Page(found, (number << PART_SHIFT) + index)
            number, end = min(number, newest) - 1, 1 << PART_SHIFT
            if number < oldest:
                return Page(found, 0)
        return Page(found, (number << PART_SHIFT) + (1 << PART_SHIFT) - 1)

    async def _part(self, number: int, digest: bytes | None) -> list[GroupRow]:
        """Its groups; none for a part that a rule of the bucket deleted, or that is forgotten by now."""
        rows = self._read.get(number)
        if rows is None and digest is not None:
            rows = await asyncio.to_thread(self._fetch, number, digest)
            self._read[number] = rows
            if len(self._read) > PARTS_IN_MEMORY_MAX:
                self._read.popitem(last=False)
        elif rows is not None:
            self._read.move_to_end(number)
        return rows or []

    def _fetch(self, number: int, digest: bytes) -> list[GroupRow]:
        name = part_name(number)
        try:
            blob = self.store.get(name)
            if blob is None:
                log.warning("archive.part_missing", part=name)
                return []
            return rows_of(number, blob.data, digest)
        except UnavailableError as error:
            raise ProblemError(503, "Unavailable", f"{name}: {error.why}", "store", "try again") from error
        except (CorruptError, UnreadableShardError, UnsupportedFormatError) as error:
            raise ProblemError(500, "DamagedArchive", str(error), "store", "run `muster store verify`") from error
