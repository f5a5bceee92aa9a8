"""A client as a process of its own, to be killed at any moment: says what it is about to do, and then what came of it.

Usage: python -m tests.linearizability.client STORE_URL NAME SEED, with blob names on its input
"""

from __future__ import annotations

import dataclasses
import json
import random
import sys
import time

from storage.blob import BlobName
from storage.open import open_store
from tests.linearizability.checker import Answer, Kind, Operation
from tests.linearizability.workload import Client, Network


class ToldClient(Client):
    """Tells everything on its output at once."""

    def begin(self, key: BlobName, kind: Kind, content: str = "", expected: str = "") -> int:
        called = time.monotonic_ns()
        self.tell(key, Operation(self.name, kind, called, called, Answer.UNKNOWN, wrote=content, expected=expected))
        return called

    def note(self, key: BlobName, operation: Operation) -> None:
        self.tell(key, operation)

    def tell(self, key: BlobName, operation: Operation) -> None:
        said = {
            "key": key,
            **dataclasses.asdict(operation),
            "kind": operation.kind.name,
            "answer": operation.answer.name,
        }
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()


def told(line: str) -> tuple[BlobName, Operation]:
    """Read back one line."""
    said = json.loads(line)
    key = BlobName(said.pop("key"))
    kind, answer = Kind[said.pop("kind")], Answer[said.pop("answer")]
    return key, Operation(kind=kind, answer=answer, **said)


def main(url: str, name: str, seed: int) -> None:
    store = open_store(url)
    rng = random.Random(seed)
    client = ToldClient(name, store, rng, network=Network(rng, faulty=False))
    client.work([BlobName(line.strip()) for line in sys.stdin])
    store.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
