"""What a pod asks of its node, and seeded draws.

The kubelet's own reading of a pod spec, on purpose not the agent's: each checks the other.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Any, Final

from cluster_agents.simkube.apiserver.types import JsonObject
from cluster_agents.simkube.labels import GPU, MIG_PREFIX

SUFFIXES: Final[Mapping[str, Decimal]] = {
    "m": Decimal("0.001"),
    "k": Decimal(10) ** 3,
    "M": Decimal(10) ** 6,
    "G": Decimal(10) ** 9,
    "T": Decimal(10) ** 12,
    "P": Decimal(10) ** 15,
    "Ki": Decimal(2) ** 10,
    "Mi": Decimal(2) ** 20,
    "Gi": Decimal(2) ** 30,
    "Ti": Decimal(2) ** 40,
    "Pi": Decimal(2) ** 50,
}
MIB: Final = Decimal(2) ** 20
RESTART_ALWAYS: Final = "Always"  # of an init container: a sidecar, counted like a main container


@dataclass(frozen=True, slots=True)
class Ask:
    """Resources of one pod, as the kubelet counts them."""

    cpu_milli: int = 0
    memory_mib: int = 0
    gpus: int = 0
    mig: tuple[tuple[str, int], ...] = ()  # instances by resource name, in order, those of 0 left out

    def plus(self, other: "Ask") -> "Ask":
        """Both together."""
        return Ask(
            self.cpu_milli + other.cpu_milli,
            self.memory_mib + other.memory_mib,
            self.gpus + other.gpus,
            _joined(self.mig, other.mig, int.__add__),
        )

    def minus(self, other: "Ask") -> "Ask":
        """What is left without `other`, which must be part of this."""
        return Ask(
            self.cpu_milli - other.cpu_milli,
            self.memory_mib - other.memory_mib,
            self.gpus - other.gpus,
            _joined(self.mig, other.mig, int.__sub__),
        )

    def at_least(self, other: "Ask") -> "Ask":
        """The larger of each."""
        return Ask(
            max(self.cpu_milli, other.cpu_milli),
            max(self.memory_mib, other.memory_mib),
            max(self.gpus, other.gpus),
            _joined(self.mig, other.mig, max),
        )


def _joined(
    one: tuple[tuple[str, int], ...], other: tuple[tuple[str, int], ...], join: Callable[[int, int], int]
) -> tuple[tuple[str, int], ...]:
    if not one and not other:
        return ()
    first, second = dict(one), dict(other)
    joined = ((name, join(first.get(name, 0), second.get(name, 0))) for name in sorted(first.keys() | second.keys()))
    return tuple((name, count) for name, count in joined if count)


def quantity(text: Any) -> Decimal:
    """A Kubernetes quantity as a number; zero when it cannot be read (the API server of the simulation is lenient)."""
    words = str(text)
    for length in (2, 1):
        factor = SUFFIXES.get(words[-length:])
        if factor is not None:
            return _decimal(words[:-length]) * factor
    return _decimal(words)


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        return Decimal(0)


def ask_of(spec: JsonObject) -> Ask:
    """The pod's effective request: main containers and sidecars together, or the largest init step, plus overhead."""
    sidecars, init_peak = Ask(), Ask()
    for container in spec.get("initContainers") or ():
        own = _container_ask(container)
        if container.get("restartPolicy") == RESTART_ALWAYS:
            sidecars = sidecars.plus(own)
            init_peak = init_peak.at_least(sidecars)
        else:
            init_peak = init_peak.at_least(sidecars.plus(own))
    total = sidecars
    for container in spec.get("containers") or ():
        total = total.plus(_container_ask(container))
    return total.at_least(init_peak).plus(_ask(spec.get("overhead") or {}))


def _container_ask(container: JsonObject) -> Ask:
    resources: JsonObject = container.get("resources") or {}
    return _ask({**(resources.get("limits") or {}), **(resources.get("requests") or {})})


def _ask(amounts: Mapping[str, Any]) -> Ask:
    return Ask(
        cpu_milli=_up(quantity(amounts.get("cpu", 0)) * 1000),
        memory_mib=_up(quantity(amounts.get("memory", 0)) / MIB),
        gpus=int(quantity(amounts.get(GPU, 0))),
        mig=tuple(sorted((name, count) for name, count in _instances(amounts) if count)),
    )


def _instances(amounts: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for name, amount in amounts.items():
        if name.startswith(MIG_PREFIX):
            yield name, int(quantity(amount))


def _up(amount: Decimal) -> int:
    """Kubernetes rounds quantities up, never down."""
    return int(amount.to_integral_value(ROUND_CEILING))


def drawn(seed: int, what: str, low: float, high: float) -> float:
    """A number in [low, high) that depends on the seed and on `what` alone, so no order of events changes it."""
    digest = hashlib.blake2b(f"{seed}|{what}".encode(), digest_size=8).digest()
    return low + (high - low) * (int.from_bytes(digest, "big") / 2**64)
