"""Every store, with eight clients at once over a bad network, servers and clients killed: is it one blob at a time?"""

import concurrent.futures
import contextlib
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from storage.backends.etcd import EtcdStore, parse_address
from storage.backends.memory import MemoryStore
from storage.blob import BlobName, BlobStore, Outcome, Version, Written
from storage.open import open_store
from tests.contract.stores import ADDRESSES
from tests.linearizability.checker import Answer, Kind, Operation
from tests.linearizability.client import told
from tests.linearizability.workload import CLIENTS, by_key, history_of, key_groups, shares_of, unexplained
from tests.servers.kinds import Servers, running_etcd
from tests.servers.process import ROOT, free_port

ONE_OPENER = {"memory", "sqlite"}


@contextlib.contextmanager
def opened(url: str, *, one: bool) -> Iterator[list[BlobStore]]:
    """Each client's own store, where the backend admits several."""
    stores = [open_store(url) for _ in range(1 if one else CLIENTS)]
    yield stores
    for store in stores:
        store.close()


@pytest.mark.parametrize("kind", sorted(ADDRESSES))
def test_an_order_explains_all_answers(kind: str, servers: Servers, tmp_path: Path) -> None:
    with opened(ADDRESSES[kind](servers, tmp_path), one=kind in ONE_OPENER) as stores:
        history = history_of(stores, seed=11)
    assert len(history) == 20
    assert unexplained(history) == []


class MortalEtcd:
    """An etcd that is killed and started again over the same data.

    By one thread, which lives as long: the kernel ends a server with the thread that started it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.up = threading.Event()
        self.kills = 0
        self.stack = contextlib.ExitStack()
        self.keeper = concurrent.futures.ThreadPoolExecutor(max_workers=1)
        self.keeper.submit(self.start).result()
        self.up.set()

    def start(self) -> None:
        self.process = self.stack.enter_context(running_etcd(self.folder, self.port))

    def kill(self) -> None:
        self.keeper.submit(self.kill_and_start).result()

    def close(self) -> None:
        self.stack.close()
        self.keeper.shutdown()

    def kill_and_start(self) -> None:
        self.up.clear()
        try:
            self.process.kill()
            self.stack.close()
            self.kills += 1
            self.start()
        finally:
            self.up.set()  # whatever happened, nobody waits for ever


def test_an_order_explains_all_answers_of_an_etcd_that_is_killed(tmp_path: Path) -> None:
    etcd = MortalEtcd(tmp_path)
    store = EtcdStore(parse_address(f"etcd://127.0.0.1:{etcd.port}/p"))

    def recover() -> None:
        etcd.up.wait()
        grpc.channel_ready_future(store._client.channel).result(timeout=30.0)

    history = history_of([store], seed=12, disturb=etcd.kill, recover=recover)
    store.close()
    etcd.close()
    assert etcd.kills == 5
    assert len(history) == 20
    assert unexplained(history) == []


def killed_client(
    url: str, name: str, keys: list[BlobName], lines_max: int | None
) -> tuple[bool, list[tuple[BlobName, Operation]]]:
    """Run one client, kill it once it has told `lines_max` lines; return whether it died of that, and what it told.

    Of each call there are two lines; a call without the second is one whose outcome nobody knows.
    """
    command = (sys.executable, "-m", "tests.linearizability.client", url, name, name.partition("-")[0][1:])
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.writelines(f"{key}\n" for key in keys)
        client.stdin.close()
        lines: list[str] = []
        for line in client.stdout:
            lines.append(line)
            if len(lines) == lines_max:
                client.kill()
    entries = [told(line) for line in lines if line.endswith("\n")]
    last = {(operation.client, operation.called): (key, operation) for key, operation in entries}
    return client.returncode == -signal.SIGKILL, list(last.values())


def test_an_order_explains_all_answers_of_a_folder_whose_clients_are_killed(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/store"
    open_store(url).close()
    rng = random.Random(13)
    shares: list[list[BlobName]] = [[] for _ in range(CLIENTS)]
    for few in key_groups(20):
        for number, share in enumerate(shares_of(few, rng)):
            shares[number] += share
    entries: list[tuple[BlobName, Operation]] = []
    deaths: list[bool] = []
    kills = [sorted(rng.randrange(20, 320) for _ in range(2)) for _ in range(CLIENTS)]

    def live_and_die(number: int) -> None:
        keys = shares[number]
        for life, lines_max in enumerate([*kills[number], None]):
            died, told_here = killed_client(url, f"c{number}-{life}", keys, lines_max)
            deaths.append(died)
            entries.extend(
                (key, one) for key, one in told_here if one.kind is not Kind.GET or one.answer is Answer.DONE
            )
            keys = keys[len(told_here) :]

    threads = [threading.Thread(target=live_and_die, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history = by_key(entries)
    assert len(history) == 20
    assert deaths.count(True) >= CLIENTS
    assert sum(len(each) for each in history.values()) > 3_900
    assert unexplained(history) == []


class CreatesOver(MemoryStore):
    def create(self, name: BlobName, data: bytes) -> Written:
        self.delete(name)
        return super().create(name, data)


class ReplacesAnything(MemoryStore):
    def replace(self, name: BlobName, data: bytes, version: Version) -> Written:
        self.delete(name)
        return super().create(name, data)


class Forgets(MemoryStore):
    """Acknowledges every fifth blob without keeping it."""

    created = 0

    def create(self, name: BlobName, data: bytes) -> Written:
        written = super().create(name, data)
        self.created += written.outcome is Outcome.DONE
        if self.created % 5 == 0:
            self.delete(name)
        return written


@pytest.mark.parametrize("store", [CreatesOver, ReplacesAnything, Forgets])
def test_a_store_that_breaks_its_promise_is_flagged(store: type[MemoryStore]) -> None:
    assert unexplained(history_of([store()], seed=14, keys=4)) != []


@pytest.mark.parametrize("kind", ["nanio", "localbucket"])
def test_a_server_that_ignores_conditions_is_flagged(kind: str, servers: Servers) -> None:
    with opened(servers.new_store(kind), one=False) as stores:
        assert unexplained(history_of(stores, seed=15, keys=4)) != []
