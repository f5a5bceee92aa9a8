"""The store is lost and the fleet goes on from a backup: when, how, and what has to come out of it.

Backup and restore are the product's own; the servers are what an operator starts again. Clusters know nothing of it.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from federation.cli.store.restoring import Facts, fold, write
from federation.core.records import AnyRecord, Recovered, Unheld, decode_records
from placement.model import Position
from storage.backends.memory import MemoryStore
from storage.backup import back_up, read_manifest, view
from storage.blob import BlobName
from storage.reading import read_entries, read_root
from storage.root import ROOT_NAME
from storage.verify import verify
from tests.world.client import join_id
from tests.world.draw import RestorePlan, stream
from tests.world.servers import WALL_MS_AT_START
from tests.world.store import SimStore
from tests.world.violation import ViolationError

if TYPE_CHECKING:
    from tests.world.world import World

BACKUP_RETRY_S: Final = 10.0
START_SPREAD_S: Final = 2.0
REPEAT_SPREAD_S: Final = 30.0  # how long people take to hand in again what they had handed in


class Restorer:
    """Acts out the seed's plan, if it has one, and judges what the recovery says."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.restores_count = 0
        self.recreated_count = 0
        self._world = world
        self._rng = rng
        self._place = MemoryStore()
        world.on_committed.append(self._committed)

    def schedule(self) -> None:
        plan = self._world.setting.restore
        if plan is not None:
            self._world.scheduler.at(plan.backup_at_s, self._back_up, plan)

    def _note(self, what: str, facts: str) -> None:
        self._world.trace.note(self._world.scheduler.now_s, "operator", what, facts)

    def _wall_ms(self) -> int:
        return WALL_MS_AT_START + int(self._world.scheduler.now_s * 1000.0)

    def _back_up(self, plan: RestorePlan) -> None:
        """Not before every cluster's join was answered: what joined later would be unknown, and nobody waits for it."""
        world = self._world
        if world.healed:
            return
        joined = all(join_id(name) not in world.client.unanswered for name in world.clusters)
        if ROOT_NAME not in world.store.blobs or not joined:
            world.scheduler.after(BACKUP_RETRY_S, self._back_up, plan)
            return
        source = MemoryStore()
        for name, blob in world.store.blobs.items():
            source.create(BlobName(name), blob.data)
        made = back_up(source, self._place, made_ms=self._wall_ms())
        self._note("backup", f"up to entry {made.manifest.last_seq}")
        world.scheduler.after(plan.lost_after_s, self._lose, plan, plan.again_after_s)

    def _lose(self, plan: RestorePlan, again_after_s: float) -> None:
        """All servers stop for good; some time later they run on what the backup gave."""
        world = self._world
        if world.healed:
            return
        for server in world.servers:
            server.crash()
        self.restores_count += 1
        target = self._restored()
        world.new_store(SimStore(world.scheduler, world.network, stream(world.setting.seed, self._store_stream())))
        world.store.fill({name: blob.data for name in target.list("") if (blob := target.get(name)) is not None})
        for server in world.servers:
            world.scheduler.after(plan.down_s + self._rng.random() * START_SPREAD_S, server.start)
        if again_after_s:
            world.scheduler.after(plan.down_s + again_after_s, self._lose, plan, 0.0)

    def _store_stream(self) -> str:
        return f"store-{self.restores_count}"

    def _restored(self) -> MemoryStore:
        """The new store; checkers know from now on what is lost."""
        world, place, target = self._world, self._place, MemoryStore()
        kept, manifest = view(place), read_manifest(place)
        assert manifest is not None
        nonce = f"restore-{self.restores_count}"
        state = fold(kept, nonce)
        ends_at = int(state.head)
        self._catch_up(ends_at)
        world.history.restored(ends_at)
        world.failing.restored()
        world.acks.restored()
        world.capacity.restored()
        lineage = f"{self._wall_ms():013d}-{nonce}"
        facts = Facts(self._wall_ms(), nonce, read_root(kept).format)
        first_seq = write(target, state, manifest, lineage, facts, term=verify(kept).term)
        self._note("restore", f"{lineage} from entry {manifest.last_seq}, goes on at {first_seq}")
        return target

    def _catch_up(self, ends_at: int) -> None:
        """The backup may hold records that no replica lived to fold."""
        history = self._world.history
        last = history.records[-1][0] if history.records else 0
        for entry in read_entries(view(self._place), read_root(view(self._place)).gc_floor + 1):
            first = int(entry.first_position)
            if entry.void or first + len(entry.records) <= last:
                continue
            for position, record in enumerate(decode_records(entry.records, Position(first)), first):
                if last < position <= ends_at:
                    history.folded(len(history.records), position, record, self._world.scheduler.now_s, "backup")

    # --- judging ---

    def _committed(self, record: AnyRecord) -> None:
        match record:
            case Unheld(uid=uid, token=token):
                self._judge_unheld(uid, token)
            case Recovered():
                self._judge_recovered(record)
                self._world.acks.recovered()
                self.recreated_count += record.recreated
                acknowledged = {*self._world.acks.acks, *self._world.acks.lost}
                delay_s = self._rng.random() * REPEAT_SPREAD_S
                self._world.scheduler.after(delay_s, self._world.client.submit_again, acknowledged)
                self._world.scheduler.after(delay_s, self._world.leaving.recovered)
            case _:
                pass

    def _judge_unheld(self, uid: str, token: str) -> None:
        """S1: a home whose containers run does not end for want of a holder, unless a newer one is held elsewhere."""
        runs, facts = self._world.runs, self._world.history.tokens[token]
        live = runs.live.get(uid, {}).get(token)
        newer = any(self._position(other) > facts.position for other in runs.live.get(uid, {}))
        if live and not newer and not runs.excused(facts):
            why = f"the home {token} of {uid} ended as held by nobody, and {len(live)} of its containers run"
            raise ViolationError("S1", why, (uid, token))

    def _judge_recovered(self, record: Recovered) -> None:
        """S7: what runs is known; only what no cluster holds may be lost."""
        history, runs = self._world.history, self._world.runs
        stopped = {uid: why for uid, _, why in record.stopped_groups}
        for uid, tokens in sorted(runs.live.items()):
            token = max(tokens, key=self._position, default="")
            facts, group = history.token(token), history.groups.get(uid)
            if not token or facts is None or runs.excused(facts) or facts.lost_end or facts.ended_by:
                continue  # it was being stopped before
            if group is None or (group.home != token and not group.outcome):
                told = f"stopped: {stopped[uid]}" if uid in stopped else "of which nothing is said"
                raise ViolationError("S7", f"{uid} runs as {token} on {facts.cluster}, {told}", (uid, token))

    def _position(self, token: str) -> int:
        facts = self._world.history.token(token)
        return facts.position if facts is not None else 0
