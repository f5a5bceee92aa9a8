"""A process that appends to a journal without end and says on its output what landed: to be killed at any moment.

Usage: python -m tests.contract.journal_writer STORE_URL BOOT
"""

import sys

from storage.blob import BlobEffect, perform
from storage.journal import EntryLanded, Journal, JournalEffect
from storage.open import open_store

BATCH = 5


def main(url: str, boot: int) -> None:
    store = open_store(url)
    journal = Journal(writer="writer", nonce=f"boot{boot}", lineage_candidate=f"lineage-{boot}")

    def drive(effects: list[JournalEffect]) -> None:
        waiting = list(effects)
        while waiting:
            effect = waiting.pop(0)
            if isinstance(effect, BlobEffect):
                waiting += journal.handle(perform(store, effect), 0.0)
            elif isinstance(effect, EntryLanded) and effect.entry.own and effect.entry.records:
                sys.stdout.write(f"{effect.entry.seq} {effect.entry.records[0].decode().split()[0]}\n")
                sys.stdout.flush()

    drive(journal.start(0.0))
    number = 0
    while True:
        number += 1
        drive(journal.append([f"{boot}.{number} {index} {'x' * 300}".encode() for index in range(BATCH)], 0.0))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
