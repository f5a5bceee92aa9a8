"""A simulated compare-and-swap store: linearizable blobs behind delays, outages and unknown outcomes.

The blobs are never wrong (assumption A3); what callers learn of them is late, lost, or "unknown" for a write that
landed, did not land, or lands afterwards.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Final, assert_never

from storage.blob import (
    Blob,
    BlobCreate,
    BlobDelete,
    BlobDeleted,
    BlobEffect,
    BlobEvent,
    BlobFailed,
    BlobGet,
    BlobList,
    BlobListed,
    BlobName,
    BlobRead,
    BlobReplace,
    BlobWritten,
    OpId,
    Outcome,
    Version,
)
from storage.root import ROOT_NAME, decode_root
from tests.world.network import Network
from tests.world.pictures import PictureChecker
from tests.world.scheduler import Scheduler
from tests.world.violation import ViolationError

STORE_TIMEOUT_S: Final = 3.0  # when a client gives a store operation up

Reply = Callable[[BlobEvent], None]


class SimStore:
    """The one store of the fleet. `blobs` is what it holds; `journal_asked` remembers when an entry was first tried."""

    def __init__(self, scheduler: Scheduler, network: Network, rng: random.Random) -> None:
        self.blobs: dict[str, Blob] = {}
        self.available = True
        self.slow: dict[str, float] = {}  # server -> factor on its delays
        self.journal_asked: dict[str, dict[bytes, tuple[float, str]]] = {}  # when, by which process
        self.journal_landed: dict[str, bytes] = {}  # what was there first, whatever was deleted since
        self.unknown_count = 0
        self._scheduler = scheduler
        self._network = network
        self._rng = rng
        self._versions = 0
        self._states: dict[str, list[tuple[float, Blob | None]]] = {}  # each blob's states, with when they began
        self._pictures = PictureChecker(self.blobs, self.journal_landed)

    def fill(self, blobs: Mapping[str, bytes]) -> None:
        """What an operator's command wrote into the empty store."""
        for name, data in blobs.items():
            self._versions += 1
            self.blobs[name] = blob = Blob(data, Version(str(self._versions)))
            self._states[name] = [(self._scheduler.now_s, blob)]
        self._pictures.filled()

    def call(self, server: str, caller: str, effect: BlobEffect, reply: Reply) -> None:
        """Carry out one operation for `server`, whose process is `caller`; `reply` is called once, some time later."""
        network, weather = self._network, self._network.weather
        mean_s = weather.store_delay_s * self.slow.get(server, 1.0)
        there_s, back_s = network.delay(mean_s), network.delay(mean_s)
        if isinstance(effect, BlobGet):
            self._read(server, effect, reply, there_s, back_s)
            return
        self._watch_journal(caller, effect)
        writes = isinstance(effect, BlobCreate | BlobReplace)
        draw = self._rng.random() if writes else 1.0
        if not self.available or network.is_cut(f"store>{server}") or draw < weather.not_applied:
            self._give_up(effect, reply)
            if writes and self._rng.random() < weather.lands_late:
                self._scheduler.after(STORE_TIMEOUT_S + self._rng.random() * weather.late_s, self._apply, effect)
            return
        draw -= weather.not_applied
        if draw < weather.lands_late:
            self._give_up(effect, reply)
            self._scheduler.after(STORE_TIMEOUT_S + self._rng.random() * weather.late_s, self._apply, effect)
            return
        draw -= weather.lands_late
        reply_lost = draw < weather.reply_lost or there_s + back_s > STORE_TIMEOUT_S
        self._scheduler.after(there_s, self._arrive, server, effect, reply, back_s, reply_lost)
        if reply_lost:
            self._give_up(effect, reply)

    def _read(self, server: str, effect: BlobGet, reply: Reply, there_s: float, back_s: float) -> None:
        """Equivalent to a read that arrives `there_s` from now, except that one action brings its answer back."""
        whole_s = there_s + back_s
        if not self.available or self._network.is_cut(f"store>{server}") or whole_s > STORE_TIMEOUT_S:
            self._give_up(effect, reply)
            return
        arrives_s = self._scheduler.now_s + there_s
        self._scheduler.after(whole_s, self._bring_back, server, effect, reply, arrives_s, STORE_TIMEOUT_S - whole_s)

    def _bring_back(self, server: str, effect: BlobGet, reply: Reply, arrived_s: float, left_s: float) -> None:
        if self._network.is_cut(f"store<{server}"):
            self._scheduler.after(left_s, reply, BlobFailed(effect.op, "timed out"))
        else:
            reply(BlobRead(effect.op, self._as_of(effect.name, arrived_s)))

    def _as_of(self, name: str, at_s: float) -> Blob | None:
        for since_s, blob in reversed(self._states.get(name, ())):
            if since_s <= at_s:
                return blob
        return None

    def _arrive(self, server: str, effect: BlobEffect, reply: Reply, back_s: float, reply_lost: bool) -> None:
        event = self._apply(effect)
        if reply_lost:
            return
        if self._network.is_cut(f"store<{server}"):
            self._give_up(effect, reply)
        else:
            self._scheduler.after(back_s, reply, event)

    def _give_up(self, effect: BlobEffect, reply: Reply) -> None:
        if isinstance(effect, BlobCreate | BlobReplace):
            self.unknown_count += 1
            event: BlobEvent = BlobWritten(effect.op, Outcome.UNKNOWN)
        else:
            event = BlobFailed(effect.op, "timed out")
        self._scheduler.after(STORE_TIMEOUT_S, reply, event)

    def _apply(self, effect: BlobEffect) -> BlobEvent:
        match effect:
            case BlobGet(op, name):
                return BlobRead(op, self.blobs.get(name))
            case BlobCreate(op, name, data):
                if name in self.blobs:
                    return BlobWritten(op, Outcome.REFUSED)
                return self._put(op, name, data)
            case BlobReplace(op, name, data, version):
                before = self.blobs.get(name)
                if before is None or before.version != version:
                    return BlobWritten(op, Outcome.REFUSED)
                return self._put(op, name, data)
            case BlobList(op, prefix, start, limit):
                names = sorted(name for name in self.blobs if name.startswith(prefix) and name > start)
                return BlobListed(op, tuple(BlobName(name) for name in names[:limit]))
            case BlobDelete(op, name):
                self.blobs.pop(name, None)
                self._states.setdefault(name, []).append((self._scheduler.now_s, None))
                return BlobDeleted(op)
            case _:
                assert_never(effect)

    def _put(self, op: OpId, name: str, data: bytes) -> BlobWritten:
        self._versions += 1
        version = Version(str(self._versions))
        self.blobs[name] = blob = Blob(data, version)
        self._states.setdefault(name, []).append((self._scheduler.now_s, blob))
        if name.startswith("journal/"):
            self.journal_landed.setdefault(name, data)
        elif name == ROOT_NAME:
            self._pictures.root_written(data)
        return BlobWritten(op, Outcome.DONE, version)

    def _watch_journal(self, caller: str, effect: BlobEffect) -> None:
        """S9: journal entries are created, and deleted only where the root says that they may be gone."""
        if isinstance(effect, BlobGet | BlobList) or not effect.name.startswith("journal/"):
            return
        if isinstance(effect, BlobDelete):
            if int(effect.name.rpartition("/")[2]) > decode_root(self.blobs[ROOT_NAME].data).gc_floor:
                raise ViolationError("S9", f"{effect.name} is deleted above the floor")
            return
        if not isinstance(effect, BlobCreate):
            raise ViolationError("S9", f"{type(effect).__name__} of journal entry {effect.name}")
        tries = self.journal_asked.setdefault(effect.name, {})
        tries.setdefault(effect.data, (self._scheduler.now_s, caller))
