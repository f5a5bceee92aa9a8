"""Proof at start-up that a store keeps the promises the journal rests on; Muster refuses one that does not.

Several S3-like servers accept conditional writes and ignore the condition. Here blocking and threads are allowed.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Final

from storage.blob import Blob, BlobName, BlobStore, Outcome, Written
from storage.errors import StoreRefusedError, UnavailableError

RACERS: Final = 8
"""As many writers at once as a fleet would ever have; enough to make a check-then-write store fail."""
RACES: Final = 4
"""One race may be passed by luck."""


def selftest(store: BlobStore, *, nonce: str) -> None:
    """Return when the store kept every promise, leaving nothing behind; raise StoreRefusedError otherwise.

    `nonce` must be fresh: it keeps runs of several servers apart. Raises UnavailableError when the store cannot be
    read, which says nothing about its promises.
    """
    prefix = f"selftest/{nonce}/"
    try:
        _create_if_absent(store, BlobName(prefix + "create"))
        _replace_if_unchanged(store, BlobName(prefix + "replace"))
        _listing(store, prefix)
        for race in range(RACES):
            _races(store, BlobName(f"{prefix}race-{race}"))
    finally:
        with contextlib.suppress(UnavailableError):
            for name in store.list(prefix):
                store.delete(name)


def _create_if_absent(store: BlobStore, name: BlobName) -> None:
    check = "create if absent"
    _create(store, check, name, b"first")
    second = store.create(name, b"second")
    _expect(check, second.outcome is not Outcome.DONE, "a second create of one name was answered as done")
    _expect(check, _read(store, check, name).data == b"first", "a second create changed what the first had written")
    store.delete(name)
    _expect(check, store.get(name) is None, "a deleted blob can still be read")
    _create(store, check, name, b"third")


def _replace_if_unchanged(store: BlobStore, name: BlobName) -> None:
    check = "replace if unchanged"
    _create(store, check, name, b"first")
    first = _read(store, check, name).version
    _expect(check, store.replace(name, b"second", first).outcome is Outcome.DONE, "a replace as read was not done")
    stale = store.replace(name, b"stale", first)
    _expect(check, stale.outcome is not Outcome.DONE, "a replace at an older version was answered as done")
    now = _read(store, check, name)
    _expect(check, now.data == b"second", "a replace at an older version changed the blob")
    store.delete(name)
    gone = store.replace(name, b"gone", now.version)
    _expect(check, gone.outcome is not Outcome.DONE, "a replace of a deleted blob was answered as done")
    _expect(check, store.get(name) is None, "a replace made a blob that was deleted")
    _create(store, check, name, b"last")


def _listing(store: BlobStore, prefix: str) -> None:
    names = list(store.list(prefix))
    wanted = [prefix + "create", prefix + "replace"]
    _expect("list", names == wanted, f"it shows {names} and not {wanted}")


def _races(store: BlobStore, name: BlobName) -> None:
    created = _race(lambda me: store.create(name, b"first %d" % me))
    _expect_one_winner("create race", created, b"first %d", _read(store, "create race", name))
    version = _read(store, "replace race", name).version
    replaced = _race(lambda me: store.replace(name, b"again %d" % me, version))
    _expect_one_winner("replace race", replaced, b"again %d", _read(store, "replace race", name))


def _race(attempt: Callable[[int], Written]) -> list[Written]:
    """Let all racers go at the same moment; return their answers in order."""
    gate = threading.Barrier(RACERS)
    answers = [Written(Outcome.UNKNOWN)] * RACERS

    def run(me: int) -> None:
        gate.wait()
        with contextlib.suppress(UnavailableError):
            answers[me] = attempt(me)

    threads = [threading.Thread(target=run, args=(me,), daemon=True) for me in range(RACERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def _expect_one_winner(check: str, answers: list[Written], wrote: bytes, blob: Blob) -> None:
    winners = [me for me, answer in enumerate(answers) if answer.outcome is Outcome.DONE]
    _expect(check, len(winners) <= 1, f"{len(winners)} of {RACERS} writers were told that they had won")
    _expect(check, bool(winners), f"none of {RACERS} writers was told that it had won")
    _expect(check, blob.data == wrote % winners[0], f"writer {winners[0]} won, and {blob.data!r} is stored")


def _create(store: BlobStore, check: str, name: BlobName, data: bytes) -> None:
    created = store.create(name, data)
    if created.outcome is Outcome.UNKNOWN:
        store.get(name)  # a store that is away says so here, and has then broken no promise
    _expect(check, created.outcome is Outcome.DONE, f"a create of an absent name was answered {created.outcome.value}")
    blob = _read(store, check, name)
    _expect(check, blob.data == data, "a blob does not read as it was written")
    _expect(check, blob.version == created.version, "a read shows another version than the write did")


def _read(store: BlobStore, check: str, name: BlobName) -> Blob:
    blob = store.get(name)
    if blob is None:
        raise StoreRefusedError(check, f"{name} was written and cannot be read")
    return blob


def _expect(check: str, holds: bool, why: str) -> None:  # noqa: FBT001  the condition itself
    if not holds:
        raise StoreRefusedError(check, why)
