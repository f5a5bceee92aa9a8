"""A journal writer killed with SIGKILL at random moments: what it acknowledged is there, whole and in place."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from storage.entry import decode_entry, entry_name
from storage.open import open_store
from storage.verify import verify
from tests.contract.journal_writer import BATCH

ROOT = Path(__file__).resolve().parents[2]
KILLS = 50


def acknowledged_before_kill(url: str, boot: int, count: int) -> list[tuple[int, str]]:
    """Run a writer, kill it once `count` acknowledgements were read, and return all it got out."""
    command = (sys.executable, "-m", "tests.contract.journal_writer", url, str(boot))
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(count)]
        writer.kill()
        lines += writer.stdout.readlines()
    whole = [line.split() for line in lines if line.endswith("\n")]
    return [(int(seq), label) for seq, label in whole]


@pytest.mark.parametrize("address", ["sqlite:///{}/store.db", "file://{}/store"], ids=["sqlite", "directory"])
def test_a_killed_writer_loses_and_tears_nothing(address: str, tmp_path: Path) -> None:
    rng = random.Random(7)
    url = address.format(tmp_path)
    acknowledged: list[tuple[int, str]] = []
    for boot in range(KILLS):
        got = acknowledged_before_kill(url, boot, rng.randint(1, 60))
        assert got, "the writer acknowledged nothing"
        acknowledged += got
    store = open_store(url)
    verified = verify(store)
    assert verified.bad is None
    assert verified.term == KILLS
    for seq, label in acknowledged:
        blob = store.get(entry_name(seq))
        assert blob is not None, f"entry {seq} was acknowledged and is gone"
        records = decode_entry(blob.data, seq).records
        assert [record.decode().split()[:2] for record in records] == [[label, str(n)] for n in range(BATCH)]
    assert len({label for _, label in acknowledged}) == len(acknowledged)
    store.close()
