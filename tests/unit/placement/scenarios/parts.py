"""Gangs on MIG instances and on shares of GPUs.

Where a source gives a pod several instances, several pods stand for it: a CUDA process uses one only. Where it shares
any GPU at any ratio, nodes whose GPUs two pods share stand for it: here a cluster's plug-in decides which are shared.
"""

from __future__ import annotations

from placement.fleet import NodeRow
from placement.model import Reason, RoleRequest
from tests.builders import gang, node, role
from tests.unit.placement.scenarios.language import (
    KAI_FRACTIONS,
    KAI_MIG,
    MIG_GUIDE,
    SHARING_GUIDE,
    Placed,
    Waits,
    scenario,
)

SMALL, TINY = "1g.10gb", "1g.5gb"


def cut(name: str, *, gpus: int = 0, **kinds: int | tuple[int, int]) -> NodeRow:
    """`cut("node0", mig_1g_10gb=(1, 2), shared_4=8)`: one instance free of two, eight replicas."""
    told = []
    for key, one in kinds.items():
        kind = key.replace("_", "/") if key.startswith("shared") else key.removeprefix("mig_").replace("_", ".")
        free, total = one if isinstance(one, tuple) else (one, one)
        told.append((kind, total, free))
    return node(name, gpus=gpus)._replace(devices=tuple(told))


def on(profile: str, pods: int = 1, name: str = "worker") -> RoleRequest:
    return role(name, pods=pods, gpus=0, mig_profile=profile)


def half(pods: int = 1, milli: int = 500) -> RoleRequest:
    return role(pods=pods, gpus=0, gpu_milli=milli)


PARTS = (
    scenario(
        "an instance of another profile does not do",
        f"{KAI_MIG} 'MIG job requesting unavailable MIG device'",
        (cut("node0", mig_1g_5gb=1),),
        gang("job", roles=(on(SMALL),)),
        Waits(Reason.SHARE_NOT_ENFORCED),
    ),
    scenario(
        "the one instance that there is is given",
        f"{KAI_MIG} 'MIG job requesting single MIG device'",
        (cut("node0", mig_1g_10gb=1),),
        gang("job", roles=(on(SMALL),)),
        Placed({"node0": 1}),
    ),
    scenario(
        "a node that lists a profile and has no instance of it gives none",
        f"{KAI_MIG} 'MIG job requesting MIG device on node with no available MIG devices'",
        (cut("node0", mig_1g_10gb=0),),
        gang("job", roles=(on(SMALL),)),
        Waits(Reason.SHARE_NOT_ENFORCED),
    ),
    scenario(
        "instances of several profiles are counted apart, and a gang that lacks one of either starts with none",
        f"{KAI_MIG} 'MIG job with multiple tasks requesting MIG device'",
        (cut("node0", mig_1g_5gb=2, mig_1g_10gb=3),),
        (
            gang("job0", roles=(on(SMALL, 3, "large"), on(TINY, 1, "small")), priority=1),
            gang("job1", roles=(on(SMALL, 1, "large"), on(TINY, 1, "small"))),
            gang("job2", roles=(on(TINY),)),
        ),
        {
            "job0": Placed({"node0": 4}),
            "job1": Waits(Reason.INSUFFICIENT_DEVICES, 1, 0),
            "job2": Placed({"node0": 1}),
        },
    ),
    scenario(
        "seven small instances of an A100 hold seven pods, and an eighth has no place",
        f"{MIG_GUIDE} 'Supported MIG Profiles', A100-SXM4-80GB: 1g.10gb x7",
        (cut("node0", mig_1g_10gb=7),),
        (gang("seven", roles=(on(SMALL, 7),)), gang("eighth", roles=(on(SMALL),))),
        {"seven": Placed({"node0": 7}), "eighth": Waits(Reason.INSUFFICIENT_DEVICES, 1, 0)},
    ),
    scenario(
        "a second pod on a GPU that one uses goes where that one is",
        f"{KAI_FRACTIONS} '1 shared gpu job running, 1 pending interactive shared gpu job, allocate to same gpu - "
        "even if multiple nodes, to check gpusharingorder plugin'",
        (cut("node0", shared_2=4), cut("node1", shared_2=(3, 4))),
        gang("job1", roles=(half(),)),
        Placed({"node1": 1}),
    ),
    scenario(
        "a gang of shares beyond its queue's quota waits whole",
        f"{KAI_FRACTIONS} 'allocate job with multiple pods but does not allow it because project goes over allowance'",
        (cut("node0", shared_2=8),),
        gang("job0", roles=(half(3),), queue="queue0"),
        Waits(Reason.QUOTA_EXHAUSTED, 2, 1),
        quotas={"queue0": 1},
    ),
    scenario(
        "a share has a place beside GPUs that others use whole",
        f"{KAI_FRACTIONS} '1 whole gpu job running, 1 pending interactive shared gpu job - allocate'",
        (node("node0", gpus=1, free=0), cut("node1", shared_2=2)),
        gang("job1", roles=(half(),)),
        Placed({"node1": 1}),
    ),
    scenario(
        "a whole GPU has a place beside GPUs that are shared",
        f"{KAI_FRACTIONS} '1 shared gpu interactive job running, 1 pending whole gpu job - allocate'",
        (cut("node0", shared_2=(1, 2)), node("node1", gpus=1)),
        gang("job1", gpus=1),
        Placed({"node1": 1}),
    ),
    scenario(
        "of five pods on a GPU with four replicas the last waits",
        f"{SHARING_GUIDE} 'replicas: 4' on a node of one GPU",
        (cut("node0", shared_4=4),),
        (gang("four", roles=(half(4, 250),)), gang("fifth", roles=(half(1, 250),))),
        {"four": Placed({"node0": 4}), "fifth": Waits(Reason.INSUFFICIENT_DEVICES, 1, 0)},
    ),
    scenario(
        "more than one replica is no larger share, so a share larger than a replica waits",
        f"{SHARING_GUIDE}: on requests for more than one replica",
        (cut("node0", shared_4=4),),
        gang("job", roles=(half(),)),
        Waits(Reason.SHARE_NOT_ENFORCED),
    ),
)
