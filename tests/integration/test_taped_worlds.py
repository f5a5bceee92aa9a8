"""Worlds with faults, whose leaders come and go, leave a tape from which all that it covers is decided again."""

from __future__ import annotations

import pytest

from federation.core.replay import ReplayReport
from federation.simulate.journal import NO_CYCLE, NO_TAPE, Stretch, replay
from storage.backends.memory import MemoryStore
from storage.blob import BlobName
from tests.world.world import World

MINUTES = 14.0
WORLDS = (4, 7, 8)  # two, five and five leaders that decide; a store that is slow, cut off, or does not answer


def store_of(world: World) -> MemoryStore:
    """What is in the store at the end, and what the living servers had still to write."""
    store = MemoryStore()
    for name, blob in world.store.blobs.items():
        store.create(BlobName(name), blob.data)
    for server in world.servers:
        for wish in server.replica.tape.rest() if server.replica is not None else ():
            store.create(wish.reel.name.blob, wish.reel.encoded())
    return store


def replayed(seed: int) -> ReplayReport:
    world = World(seed, MINUTES, taped=True)
    world.run()
    return replay(store_of(world), Stretch())


@pytest.mark.parametrize("seed", WORLDS)
def test_every_decision_that_the_tape_covers_is_made_again_over_crashes_cuts_and_elections(seed: int) -> None:
    found = replayed(seed)
    assert (found.different, found.first_difference) == (0, None)
    assert found.terms >= 2
    assert found.equal >= 0.8 * found.decisions
    assert found.decisions >= 30
    known = {NO_TAPE, NO_CYCLE, "the store did not keep up with the tape"}
    assert {why for why in found.not_covered if why not in known and not why.endswith("is missing")} == set()
