"""Names on pods and nodes that simkube reads: Muster's labels, simkube's own annotations, GPU feature discovery."""

from typing import Final

GROUP_UID: Final = "muster.io/group-uid"
TOKEN: Final = "muster.io/token"  # noqa: S105 - a fencing token, no secret
ROLE: Final = "muster.io/role"
RANK: Final = "muster.io/rank"
RACK: Final = "muster.io/rack"
BLOCK: Final = "muster.io/block"

RUN_SECONDS: Final = "simkube/run-seconds"
FAIL_AFTER_SECONDS: Final = "simkube/fail-after-seconds"

GPU: Final = "nvidia.com/gpu"
GPU_PRODUCT: Final = "nvidia.com/gpu.product"
GPU_COUNT: Final = "nvidia.com/gpu.count"
GPU_MEMORY: Final = "nvidia.com/gpu.memory"
GPU_CLIQUE: Final = "nvidia.com/gpu.clique"
MIG_PREFIX: Final = "nvidia.com/mig-"
MIG_STRATEGY: Final = "nvidia.com/mig.strategy"
GPU_SHARING: Final = "nvidia.com/gpu.sharing-strategy"
GPU_REPLICAS: Final = "nvidia.com/gpu.replicas"
GPU_SHARED: Final = "nvidia.com/gpu.shared"

REGION: Final = "topology.kubernetes.io/region"
ZONE: Final = "topology.kubernetes.io/zone"
HOSTNAME: Final = "kubernetes.io/hostname"
