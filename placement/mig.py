"""MIG: how an instance's profile is called, and which sets of instances one GPU of a product can be cut into.

Cutting is done by whoever runs the node; the table is for simulated nodes. Sources: NVIDIA's MIG User Guide, "Supported
MIG Profiles" and its placement figures.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

MIG_RESOURCE_PREFIX: Final = "nvidia.com/mig-"
MIG_PER_POD_MAX: Final = 1  # a CUDA process uses one instance only, whatever its container is given

_RESOURCE: Final = re.compile(r"([1-7]g\.[1-9][0-9]{0,3}gb)((?:\.(?:me|gfx)){0,2})", re.ASCII)


def profile_of(resource: str) -> str | None:
    """The profile that a device plug-in's resource name stands for: `nvidia.com/mig-1g.5gb.me` is 1g.5gb+me.

    None for what is no MIG resource. A resource name may not hold a `+`, so the plug-in writes a dot.
    """
    found = _RESOURCE.fullmatch(resource.removeprefix(MIG_RESOURCE_PREFIX))
    if found is None or not resource.startswith(MIG_RESOURCE_PREFIX):
        return None
    return found[1] + found[2].replace(".", "+")


def resource_of(profile: str) -> str:
    """Inverse of `profile_of`."""
    return MIG_RESOURCE_PREFIX + profile.replace("+", ".")


@dataclass(frozen=True, slots=True)
class Cutting:
    """How one product may be cut: its compute slices (an instance takes the `g` of its profile's name), and the memory
    slices that an instance of each profile takes, and at which it may start."""

    compute: int
    memory: int
    sizes: Mapping[str, int]  # profile -> memory slices
    starts: Mapping[str, tuple[int, ...]]  # profile -> where an instance may start, first choice first


def _seven(one: str, one_wide: str, two: str, three: str, four: str, seven: str) -> Cutting:
    """Seven compute and eight memory slices, as A100, H100, H200 and B200 have; they differ in what a slice holds.

    An instance of four may start at 0 only and one of three at 0 or 4; a wide one (one compute slice, two of memory) at
    each even slice.
    """
    sizes = {one: 1, one_wide: 2, two: 2, three: 4, four: 4, seven: 8}
    starts: dict[str, tuple[int, ...]] = {
        one: (6, 5, 4, 3, 2, 1, 0),
        one_wide: (6, 4, 2, 0),
        two: (4, 2, 0),
        three: (4, 0),
        four: (0,),
        seven: (0,),
    }
    return Cutting(7, 8, sizes, starts)


A30: Final = Cutting(
    4,
    4,
    {"1g.6gb": 1, "2g.12gb": 2, "4g.24gb": 4},
    {"1g.6gb": (3, 2, 1, 0), "2g.12gb": (2, 0), "4g.24gb": (0,)},
)
A100_40: Final = _seven("1g.5gb", "1g.10gb", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb")
A100_80: Final = _seven("1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb")
H200: Final = _seven("1g.18gb", "1g.35gb", "2g.35gb", "3g.71gb", "4g.71gb", "7g.141gb")
B200: Final = _seven("1g.23gb", "1g.45gb", "2g.45gb", "3g.90gb", "4g.90gb", "7g.180gb")

CUTTINGS: Final[Mapping[str, Cutting]] = {
    "A30": A30,
    "A100-40": A100_40,
    "A100-80": A100_80,
    "H100-80": A100_80,
    "H200-141": H200,
    "B200-180": B200,
}
"""By short product name, as simulated nodes call them; H100 is cut as an A100 of 80 GB."""


_SLICES: Final = 7  # compute slices of all products but the A30


def share_of_gpu(profile: str) -> Fraction:
    """How much of a GPU's compute an instance has: 3g.40gb is three sevenths. For all products that know the profile
    it is the same; what none of those listed knows counts in sevenths."""
    plain = profile.partition("+")[0]
    slices = [cutting.compute for cutting in CUTTINGS.values() if plain in cutting.sizes]
    return Fraction(int(plain[0]), max(slices, default=_SLICES))


def can_live_together(cutting: Cutting, profiles: Sequence[str]) -> bool:
    """Whether one GPU can hold an instance of each of `profiles` (a profile may come more than once) at one time.

    False for a profile that the product lacks. Tried exhaustively, largest first: at most seven instances fit. Profiles
    with extras (`+me`, `+gfx`) are judged as the plain ones: of extras a GPU has fewer, and that is not looked at.
    """
    plain = [profile.partition("+")[0] for profile in profiles]
    if len(plain) > cutting.compute or not cutting.sizes.keys() >= set(plain):
        return False
    if sum(int(profile[0]) for profile in plain) > cutting.compute:
        return False
    ordered = sorted(plain, key=lambda profile: (-cutting.sizes[profile], profile))
    return _placed(cutting, ordered, frozenset(range(cutting.memory)))


def _placed(cutting: Cutting, profiles: Sequence[str], free: frozenset[int]) -> bool:
    if not profiles:
        return True
    size = cutting.sizes[profiles[0]]
    for start in cutting.starts[profiles[0]]:
        taken = frozenset(range(start, start + size))
        if taken <= free and _placed(cutting, profiles[1:], free - taken):
            return True
    return False
