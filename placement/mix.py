"""Which kinds of pods a fleet is asked for, learnt from arrivals: what tells useful free parts of a node from useless.

Nobody gives a fleet the list of its pods in advance. Counts only; what they make a node worth is `placement.worth`'s.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from placement.model import GangRequest

GPU_MILLI: Final = 1_000  # of one GPU

COUNTED_MAX: Final = 1 << 15  # arrivals remembered: when there are more, all counts are halved, so that old ones fade
KINDS_MAX: Final = 2_000  # beyond any fleet's habits; worth is worked out over all of them
PODS_PER_ARRIVAL_MAX: Final = 64  # one huge gang says less about the next arrivals than as many small groups


class PodKind(NamedTuple):
    """What one pod asks for: `gpus` devices with `gpu_milli` each, of one of `products` (any if empty)."""

    cpu_milli: int
    gpus: int
    gpu_milli: int
    products: tuple[str, ...]


class MixFacts(NamedTuple):
    """All that a `ClassMix` knows, as a value: equal mixes have equal facts."""

    counts: tuple[tuple[PodKind, int], ...]  # in the order of kinds
    total: int
    version: int
    due_in: int


class ClassMix:
    """How often each kind arrived lately. `counts` include kinds without GPUs: they tell how rare the others are."""

    __slots__ = ("_due_in", "counts", "total", "version")

    def __init__(self) -> None:
        self.counts: dict[PodKind, int] = {}
        self.total = 0
        self.version = 0  # grows when what was learnt should be looked at anew
        self._due_in = 8  # too little before: whatever came first would decide

    def arrived(self, kind: PodKind, pods: int = 1) -> None:
        """`pods` of a kind have arrived.

        The version grows after 8 arrivals, and then whenever half as many again have come: early looks matter, and
        late ones change little.
        """
        if kind not in self.counts and len(self.counts) >= KINDS_MAX:
            self._halve()
            if len(self.counts) >= KINDS_MAX:
                return
        self.counts[kind] = self.counts.get(kind, 0) + pods
        self.total += pods
        if self.total > COUNTED_MAX:
            self._halve()
        self._due_in -= pods
        if self._due_in <= 0:
            self.version += 1
            self._due_in = self.total // 2 + 1

    def asked(self, request: GangRequest) -> None:
        """A gang has arrived: its pods count, of each role at most PODS_PER_ARRIVAL_MAX."""
        for role in request.roles:
            whole = GPU_MILLI if role.gpus else 0
            gpus = role.gpus or int(role.gpu_milli > 0)
            kind = PodKind(role.cpu_milli, gpus, role.gpu_milli or whole, role.products)
            self.arrived(kind, min(role.count, PODS_PER_ARRIVAL_MAX))

    def copy(self) -> ClassMix:
        """The mix as it is now, which later arrivals do not change."""
        twin = ClassMix()
        twin.counts, twin.total, twin.version, twin._due_in = dict(self.counts), self.total, self.version, self._due_in
        return twin

    def facts(self) -> MixFacts:
        """Everything known, for `of`. O(kinds)."""
        return MixFacts(tuple(sorted(self.counts.items())), self.total, self.version, self._due_in)

    @classmethod
    def of(cls, facts: MixFacts) -> ClassMix:
        """The mix that had these facts: it goes on as that one would."""
        mix = cls()
        mix.counts, mix.total, mix.version, mix._due_in = dict(facts.counts), facts.total, facts.version, facts.due_in
        return mix

    def _halve(self) -> None:
        self.counts = {kind: count // 2 for kind, count in self.counts.items() if count > 1}
        self.total = sum(self.counts.values())
