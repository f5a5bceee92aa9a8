"""Node specifications as people write them, "64xA100-80:8,clique=4", turned into node shapes. Pure.

Several groups of nodes are joined by "+": "64xA100-80:8,clique=4+8xcpu:0,cpu=32".
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Final

from cluster_agents.simkube import labels
from cluster_agents.simkube.kubelet.types import NodeShape
from placement.mig import CUTTINGS, can_live_together, resource_of

GPU_MEMORY_MIB: Final[Mapping[str, int]] = {
    "A100-40": 40_960,
    "A100-80": 81_920,
    "H100-80": 81_559,
    "H200-141": 143_771,
    "B200-180": 183_359,
    "L4-24": 23_034,
    "T4-16": 15_360,
}
GPU_MEMORY_DEFAULT_MIB: Final = 81_920
GPUS_PER_NODE_MAX: Final = 16
REPLICAS_MAX: Final = 48  # of one GPU: as many clients as MPS takes on today's GPUs
NODES_MAX: Final = 5_000
MIXED: Final = "mixed"
SINGLE: Final = "single"

_GROUP = re.compile(
    r"(?P<count>[0-9]{1,9})x(?P<product>[A-Za-z0-9][-A-Za-z0-9_.]*):(?P<gpus>[0-9]{1,9})(?P<options>(,[a-z]+=[^,+]+)*)"
)
OPTIONS: Final = frozenset(
    {"clique", "rack", "block", "cpu", "memory", "pods", "region", "zone", "mig", "strategy", "shared"}
)
_COUNT = re.compile(r"[0-9]{1,6}")


class NodeSpecError(ValueError):
    """A node specification that cannot be read; says which part and what is allowed."""

    def __init__(self, spec: str, why: str) -> None:
        super().__init__(f"node specification {spec!r}: {why}")
        self.spec = spec


def node_shapes(cluster: str, spec: str) -> list[NodeShape]:
    """The nodes of `spec`, named `<cluster>-0001` and on. NodeSpecError when it cannot be read or is too large.

    Options: nodes per `clique` (NVLink domain, none by default), nodes per `rack` (16), racks per `block` (4),
    `cpu` (cores), `memory` (GiB), `pods`, `region`, `zone`; `mig`: what each GPU is cut into, joined by `/`, and
    `strategy`: whether that goes by names of its own (`mixed`) or by that of whole GPUs (`single`, of one profile);
    `shared`: by how many pods each GPU is used in turn.
    """
    shapes: list[NodeShape] = []
    for part in spec.split("+"):
        found = _GROUP.fullmatch(part.strip())
        if found is None:
            raise NodeSpecError(spec, 'want COUNTxPRODUCT:GPUS[,option=value...], as in "64xA100-80:8,clique=4"')
        options = dict(option.split("=", 1) for option in found["options"].split(",") if option)
        unknown = sorted(options.keys() - OPTIONS)
        if unknown:
            raise NodeSpecError(spec, f"unknown option {unknown[0]}; known: {', '.join(sorted(OPTIONS))}")
        gpus = int(found["gpus"])
        if gpus > GPUS_PER_NODE_MAX:
            raise NodeSpecError(spec, f"{gpus} GPUs in a node, at most {GPUS_PER_NODE_MAX}")
        if len(shapes) + int(found["count"]) > NODES_MAX:
            raise NodeSpecError(spec, f"more than {NODES_MAX} nodes")
        shapes += [
            _shape(cluster, spec, len(shapes) + i, found["product"], gpus, options) for i in range(int(found["count"]))
        ]
    return shapes


def _shape(cluster: str, spec: str, index: int, product: str, gpus: int, options: Mapping[str, str]) -> NodeShape:
    rack = index // _count(spec, options, "rack", 16)
    node_labels = {
        labels.REGION: options.get("region", "sim-1"),
        labels.ZONE: options.get("zone", "sim-1a"),
        labels.RACK: f"{cluster}-rack-{rack}",
        labels.BLOCK: f"{cluster}-block-{rack // _count(spec, options, 'block', 4)}",
    }
    if gpus:
        node_labels |= {
            labels.GPU_PRODUCT: product,
            labels.GPU_COUNT: str(gpus),
            labels.GPU_MEMORY: str(GPU_MEMORY_MIB.get(product, GPU_MEMORY_DEFAULT_MIB)),
            labels.GPU_SHARING: "none",
        }
    cut = _cut(spec, product, options.get("mig", ""))
    strategy = _strategy(spec, options, cut)
    if cut:
        node_labels[labels.MIG_STRATEGY] = strategy
    instances = {resource_of(profile): gpus * count for profile, count in cut.items()}
    if strategy == SINGLE:
        ((profile, count),) = cut.items()
        node_labels |= {labels.GPU_PRODUCT: f"{product}-MIG-{profile}", labels.GPU_COUNT: str(gpus * count)}
        instances = {labels.GPU: gpus * count}
    replicas = _replicas(spec, options, cut)
    if replicas > 1:
        node_labels |= {
            labels.GPU_PRODUCT: f"{product}-SHARED",
            labels.GPU_SHARING: "time-slicing",
            labels.GPU_REPLICAS: str(replicas),
        }
    if gpus and "clique" in options:
        node_labels[labels.GPU_CLIQUE] = f"{cluster}.{index // _count(spec, options, 'clique', 1)}"
    return NodeShape(
        name=f"{cluster}-{index + 1:04d}",
        cpu_milli=1000 * _count(spec, options, "cpu", 128),
        memory_mib=1024 * _count(spec, options, "memory", 1024),
        gpus=instances.pop(labels.GPU, 0 if cut else gpus * replicas),
        mig=instances,
        pods_max=_count(spec, options, "pods", 110),
        labels=node_labels,
    )


def _cut(spec: str, product: str, text: str) -> Counter[str]:
    """How many instances of each profile one GPU has; none where it stays whole."""
    profiles = text.split("/") if text else []
    if profiles and product not in CUTTINGS:
        raise NodeSpecError(spec, f"mig={text}: of {product} it is not known how it is cut")
    if profiles and not can_live_together(CUTTINGS[product], profiles):
        known = ", ".join(sorted(CUTTINGS[product].sizes))
        raise NodeSpecError(spec, f"mig={text}: one {product} cannot be cut so; its profiles are {known}")
    return Counter(profiles)


def _strategy(spec: str, options: Mapping[str, str], cut: Counter[str]) -> str:
    """How the device plug-in advertises instances."""
    strategy = options.get("strategy", MIXED)
    if strategy not in {MIXED, SINGLE} or ("strategy" in options and not cut):
        raise NodeSpecError(spec, f"strategy={strategy}: say mixed or single, of GPUs that are cut by mig")
    if strategy == SINGLE and len(cut) > 1:
        raise NodeSpecError(spec, f"strategy=single: all instances are of one profile, not {', '.join(sorted(cut))}")
    return strategy


def _replicas(spec: str, options: Mapping[str, str], cut: Counter[str]) -> int:
    """As how many GPUs the device plug-in advertises each one."""
    replicas = _count(spec, options, "shared", 1)
    if replicas > REPLICAS_MAX:
        raise NodeSpecError(spec, f"shared={replicas}: at most {REPLICAS_MAX} pods share a GPU")
    if replicas > 1 and cut:
        raise NodeSpecError(spec, f"shared={replicas}: GPUs that are cut by mig stay unshared here")
    return replicas


def _count(spec: str, options: Mapping[str, str], key: str, default: int) -> int:
    text = options.get(key, str(default))
    if not _COUNT.fullmatch(text) or not int(text):
        raise NodeSpecError(spec, f"{key}={text} is not a number from 1 to 999999")
    return int(text)
