"""What an agent's core is told at its start, and the names and limits its modules share. Decides nothing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

from federation.protocol.lease import Timings
from placement.model import FenceStrength

# --- names in the cluster (DESIGN §5, §6, §9) -------------------------------------------------------------------------

LABEL_KIND: Final = "muster.io/kind"
LABEL_GROUP: Final = "muster.io/group-uid"
LABEL_TOKEN: Final = "muster.io/token"  # noqa: S105 - a placement's token, no secret
LABEL_ROLE: Final = "muster.io/role"
LABEL_RANK: Final = "muster.io/rank"
ENV_TOKEN: Final = "MUSTER_FENCE_TOKEN"  # noqa: S105 - of every container: whose it is, without labels as well
KIND_INTENT: Final = "intent"
KIND_LEDGER: Final = "ledger"
FINALIZER: Final = "muster.io/outcome"
SCHEDULER_NAME: Final = "muster"
LEDGER_NAME: Final = "muster-ledger"
LEASE_NAME: Final = "muster-agent"
GUARD_PLUGIN: Final = "muster-guard"
REQUIRED_PLUGINS: Final = "required-plugins.noderesource.dev"
"""Annotation of a pod: a list of those NRI plug-ins without which the node's runtime creates none of its containers."""

GUARD_STOPPED: Final = "muster: stopped by the node's guard, since the cluster's lease had run out"
"""Last line of a container's termination message, by which its end is known as no fault of its own."""

NEVER: Final = float("inf")  # when what is not expected is due

# --- limits -----------------------------------------------------------------------------------------------------------

LEDGER_ENTRIES_MAX: Final = 10_000
"""DESIGN §15: give-ups and groups that may yet be given up; at the limit nothing new is accepted."""

DESIRED_GROUPS_MAX: Final = 40_000
"""DESIGN §15: desired groups per cluster; more are set aside, as no cluster of 5,000 nodes holds more."""

CALL_TIMEOUT_S: Final = 5.0
"""One API call; the API server's own promise is 1 s at p99, and a longer wait only delays the read-back."""

ANSWER_SLACK_S: Final = 2.0
"""An answer later than time-out + slack was lost on the way inside this process: the call counts as unknown."""

STARTS_IN_FLIGHT_MAX: Final = 64
"""Creates and bindings under way at once: 64 kept a client at 940 bindings/s (measured), more only queues in the
server."""

OTHERS_IN_FLIGHT_MAX: Final = 64
"""Deletes, patches and reads under way at once: more only wait, while their time-outs run, and are sent again. To undo
10,000 pods within T_undo takes 333 calls a second: an API server may take 190 ms for each."""

ATTEMPTS_MAX: Final = 5
"""Tries of one write of a gang that is being built before the gang is given up; undoing is tried for ever."""

BACKOFF_S: Final = 0.2
BACKOFF_S_MAX: Final = 5.0
"""Between tries of one call: short, since a half-bound gang has T_undo, and long enough for a restart of the server."""

VERDICT_RESEND_S: Final = 3.0
"""Between sends of an unanswered verdict; a server needs a round trip and one store write to answer."""

VERDICT_RESEND_S_MAX: Final = 15.0
"""Where nobody answers for long, 10,000 ledger entries must not drown the bus."""

ASK_IDS_PER_BOOT: Final = 1 << 24
"""At 100 asks and calls a second, two days' worth; a late answer from before is long gone by then."""

SPEC_BYTES_MAX: Final = 1024 * 1024
"""A PodGroup of 256 KiB manifest and its frame, decompressed; more is a bomb."""

NODE_CONDITIONS_DENIED: Final = frozenset(
    {
        "GpuMemWatch", "GpuThermalWatch", "GpuPcieWatch", "GpuPowerWatch", "GpuInforomWatch", "GpuSmWatch",
        "GpuNvlinkWatch", "GpuDriverWatch", "SysLogsXIDError", "SysLogsSXIDError", "SysLogsGPUFallenOff",
        "NVSwitchFatalError", "NVSwitchDown", "CSPMaintenance",
    }
)  # fmt: skip
"""Conditions that NVSentinel sets to True on a node with a fault (`reference/kubernetes.md` §4)."""


NODE_LABELS: Final = frozenset(
    {
        "kubernetes.io/arch", "kubernetes.io/os", "node.kubernetes.io/instance-type", "topology.kubernetes.io/region",
        "karpenter.sh/capacity-type", "karpenter.sh/nodepool", "cloud.google.com/gke-nodepool",
        "cloud.google.com/gke-accelerator", "cloud.google.com/gke-spot", "eks.amazonaws.com/nodegroup",
        "eks.amazonaws.com/capacityType", "kubernetes.azure.com/agentpool", "kubernetes.azure.com/scalesetpriority",
        "nvidia.com/gpu.family", "nvidia.com/gpu.memory", "nvidia.com/gpu.machine",
        "nvidia.com/gpu.sharing-strategy", "nvidia.com/mig.strategy",
    }
)  # fmt: skip
"""Labels by which pods choose nodes in many clusters, and of which one cluster has few values; more can be named."""

NODE_LABEL_PREFIX: Final = "muster.io/"
"""Labels of ours are always reported."""

NODE_LABELS_MAX: Final = 32
"""Of one node in a report, so that rows stay small; more are left out, last by name first."""


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """`boot_nonce` differs at every start of the process. `api_burst` should hold one gang: two calls a pod."""

    cluster: str
    boot_nonce: str
    timings: Timings = field(default_factory=Timings)
    seed: int = 0  # drawn outside; only spreads ask ids
    boot_min: int = 0
    """Reports are stamped from here on at least: the time of the start in seconds. What counted them may be deleted, as
    with the namespace when agents are installed anew; servers leave reports aside that are older than the last one."""
    namespace: str = "muster-system"
    fence_strength: FenceStrength = FenceStrength.NONE
    api_per_s: float = 20.0
    api_burst: int = 1_100
    conditions_denied: frozenset[str] = NODE_CONDITIONS_DENIED
    taints_tolerated: frozenset[str] = frozenset({"nvidia.com/gpu"})  # our pods get the toleration
    node_labels: frozenset[str] = NODE_LABELS  # by which pods may choose nodes

    @property
    def first_id(self) -> int:
        """Ids of asks and calls differ between processes, so that no late answer meets another process's ask."""
        digest = hashlib.blake2b(f"{self.boot_nonce}/{self.seed}".encode(), digest_size=4).digest()
        return int.from_bytes(digest, "big") * ASK_IDS_PER_BOOT

    @property
    def half_bound_s(self) -> float:
        """How long a gang may stay between its first and its last binding, so that bind + undo fit T_undo (S6)."""
        return max(self.timings.undo_s - 1.5 * self.timings.undo_grace_s, self.timings.undo_s / 4)
