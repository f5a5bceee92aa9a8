"""Key pairs for the bus: one nkey per role. The seed is the secret; the public key goes into the broker's users.

Randomness comes from the operating system; files and their modes are the caller's.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import nkeys  # type: ignore[import-untyped]

SEED_BYTES = 32


@dataclass(frozen=True, slots=True)
class BusKey:
    """`seed` must reach nobody but its role; `public` names the role to the broker."""

    public: str
    seed: str = field(repr=False)


def new_bus_key() -> BusKey:
    """A fresh user key pair."""
    return bus_key_of(nkeys.encode_seed(os.urandom(SEED_BYTES), nkeys.PREFIX_BYTE_USER).decode())


def bus_key_of(seed: str) -> BusKey:
    """The pair of a stored seed; nkeys' error when it is none."""
    pair = nkeys.from_seed(bytearray(seed.strip().encode()))
    return BusKey(public=pair.public_key.decode(), seed=seed.strip())
