"""Gangs of one role and of several, on nodes without topology: whole or not at all, and where."""

from __future__ import annotations

from placement.model import Reason
from tests.builders import gang, node, role
from tests.unit.placement.scenarios.language import (
    KAI_ALLOCATE,
    KAI_SUBGROUPS,
    KUEUE_TOPOLOGY,
    VOLCANO,
    Placed,
    Waits,
    cpus,
    gpus,
    scenario,
)

GANGS = (
    scenario(
        "two pods of one gang share a node that holds both to the last CPU",
        f"{VOLCANO} 'one Job with two Pods on one node'",
        cpus(n1=2),
        gang("g", roles=(role(pods=2, gpus=0, cpu_milli=1000),)),
        Placed({"n1": 2}),
    ),
    scenario(
        "a gang that no node can ever hold does not keep the next one from starting",
        f"{VOLCANO} 'high priority queue should not block others'",
        cpus(n1=2),
        (
            gang("large", roles=(role(gpus=0, cpu_milli=3000),), priority=1, queue="q1"),
            gang("small", roles=(role(gpus=0, cpu_milli=1000),), queue="q2"),
        ),
        {"large": Waits(Reason.LARGER_THAN_CLUSTER, 1, 0), "small": Placed({"n1": 1})},
    ),
    scenario(
        "two roles of equal pods share a node",
        f"{KAI_SUBGROUPS} 'Allocate job with SubGroups - full allocate'",
        gpus(node0=2),
        gang("g", roles=(role("sub0", gpus=1), role("sub1", gpus=1))),
        Placed({"node0": 2}),
    ),
    scenario(
        "no pod starts when one role fits and the other does not fit beside it",
        f"{KAI_SUBGROUPS} 'Allocate job with SubGroups - cannot satisfy sub group gang'",
        gpus(node0=4),
        gang("g", roles=(role("sub0", gpus=3), role("sub1", pods=2, gpus=1))),
        Waits(Reason.LARGER_THAN_CLUSTER, 5, 4),
    ),
    scenario(
        "three gangs in order: the whole node for the first, the rest of the other for the second, the third waits",
        f"{KAI_ALLOCATE} '1 job running on node0, 3 pending jobs - allocate them according to their order'",
        gpus(node0=(2, 4), node1=4),
        (gang("job0", gpus=4), gang("job1", gpus=2), gang("job2", gpus=2)),
        {
            "job0": Placed({"node1": 1}),
            "job1": Placed({"node0": 1}),
            "job2": Waits(Reason.INSUFFICIENT_GPUS, 2, 0),
        },
    ),
    scenario(
        "pods that ask for nothing run on a node whose GPUs are all taken",
        f"{KAI_ALLOCATE} '1 build job running on 2 GPU, assign pending jobs of best effort'",
        gpus(node0=(0, 2)),
        (gang("job0", roles=(role(gpus=0),)), gang("job1", roles=(role(gpus=0),))),
        {"job0": Placed({"node0": 1}), "job1": Placed({"node0": 1})},
    ),
    scenario(
        "in a cluster without nodes every gang waits",
        f"{KAI_ALLOCATE} 'No nodes'",
        (),
        (gang("job0", gpus=1), gang("job1", gpus=1, queue="queue1")),
        {"job0": Waits(Reason.LARGER_THAN_CLUSTER, 1, 0), "job1": Waits(Reason.LARGER_THAN_CLUSTER, 1, 0)},
    ),
    scenario(
        "a pod goes to the node with the fewest free GPUs",
        f"{KAI_ALLOCATE} 'Allocate task according to nodepack - to the node with the least free GPUs'",
        gpus(node0=2, node1=(1, 2)),
        gang("job0", gpus=1),
        Placed({"node1": 1}),
    ),
    scenario(
        "a share of a GPU is not given where nobody keeps pods to their share",
        f"{KAI_ALLOCATE} 'Fraction job on MIG node'",
        gpus(node0=2),
        gang("job0", roles=(role(gpus=0, gpu_milli=100),)),
        Waits(Reason.SHARE_NOT_ENFORCED),
    ),
    scenario(
        "a pod larger than every node waits, whatever is free in all",
        f"{KUEUE_TOPOLOGY} 'block required; single Pod which cannot be split'",
        cpus(x3=1, x5=1, x1=1, x6=1, x2=1, x4=2),
        gang("g", roles=(role(gpus=0, cpu_milli=4000),)),
        Waits(Reason.LARGER_THAN_CLUSTER, 1, 0),
    ),
    scenario(
        "a gang larger than all nodes together waits and is told how many of its pods they hold",
        f"{KUEUE_TOPOLOGY} 'block preferred; but the workload cannot be accommodate in entire topology'",
        gpus(x3=1, x5=1, x1=1, x6=1, x2=1, x4=2),
        gang("g", pods=10, gpus=1, level_preferred="block"),
        Waits(Reason.LARGER_THAN_CLUSTER, 10, 7),
    ),
    scenario(
        "of what a pod asks for, GPUs are named first when CPU is short as well",
        f"{KUEUE_TOPOLOGY} 'resource exclusion picks most restrictive resource'",
        (node("dual-shortage", gpus=1, free=0, cpu=1),),
        gang("g", roles=(role(gpus=1, cpu_milli=1000),)),
        Waits(Reason.INSUFFICIENT_GPUS, 1, 0),
    ),
    scenario(
        "a pod of a group at the level of hosts goes to a host that has room for it",
        f"{KUEUE_TOPOLOGY} 'include usage from running non-TAS pods, found free capacity on another node'",
        (node("x3", gpus=0, cpu=1)._replace(cpu_milli_free=400), node("x5", gpus=0, cpu=1)),
        gang("g", roles=(role(gpus=0, cpu_milli=600),), level="host"),
        Placed({"x5": 1}),
    ),
    scenario(
        "a pod does not go where other people's pods have left too little CPU",
        f"{KUEUE_TOPOLOGY} 'include usage from running non-TAS pods, blocked assignment'",
        (node("x3", gpus=0, cpu=1)._replace(cpu_milli_free=400),),
        gang("g", roles=(role(gpus=0, cpu_milli=600),), level="host"),
        Waits(Reason.INSUFFICIENT_CPU, 1, 0),
    ),
    scenario(
        "a leader and its workers fill two nodes to the last GPU",
        f"{KUEUE_TOPOLOGY} 'balanced placement; should not prune domain'",
        gpus(x1=6, x2=5),
        gang("g", roles=(role("leader", gpus=1), role("workers", pods=10, gpus=1))),
        Placed({"x1": 6, "x2": 5}),
    ),
)
