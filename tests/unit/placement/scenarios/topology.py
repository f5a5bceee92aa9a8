"""Gangs that must or would like to stand together: in one host, rack or block."""

from __future__ import annotations

from typing import Any

from placement.engine import Pending
from placement.model import Reason
from tests.builders import gang, node, nodes, role
from tests.unit.placement.scenarios.language import (
    KAI_LEVELS,
    KAI_TOPOLOGY,
    KUEUE_TOPOLOGY,
    NOMAD,
    VOLCANO,
    Placed,
    Waits,
    scenario,
    tree,
)

# Where a source names its outer level rack and the inner one spine, these are block and rack here.
# The default nodes of Kueue's table, and its other drawings, with one GPU for a CPU.
DEFAULT = tree("b1/r1/x3:1 b1/r2/x5:1 b1/r2/x1:1 b1/r2/x6:1 b2/r1/x2:1 b2/r2/x4:2")
BINARY = tree("b1/r1/x3:1 b1/r1/x5:1 b1/r2/x1:1 b1/r2/x6:1 b2/r1/x2:1 b2/r1/x4:1 b2/r2/x7:1 b2/r2/x8:1")
# Volcano's: two racks of two nodes, two GPUs each.
SWITCHES = tree("s2/s0/s0-n1:2 s2/s0/s0-n2:2 s2/s1/s1-n3:2 s2/s1/s1-n4:2")

REQUIRED = (
    scenario(
        "both pods go to the rack that has room for both",
        f"{KAI_TOPOLOGY} 'Required topology level - schedule all tasks on the same rack'",
        tree("b/rack1/node0:0/1 b/rack1/node1:1 b/rack2/node2:1 b/rack2/node3:1"),
        gang("g", pods=2, gpus=1, level="rack"),
        Placed({"node2": 1, "node3": 1}),
    ),
    scenario(
        "within a rack of two spines, pods go to the spine that holds all of them",
        f"{KAI_TOPOLOGY} 'Required topology with multiple levels - schedule all tasks on the same spine'",
        tree("rack1/spine1/node0:1/2 rack1/spine2/node1:2"),
        gang("g", pods=2, gpus=1, level="rack"),
        Placed({"node1": 2}),
    ),
    scenario(
        "four pods go to the rack that is wholly free",
        f"{KAI_TOPOLOGY} 'Required topology with multiple levels - schedule all tasks on the same rack'",
        tree("rack1/spine1/node0:1/2 rack1/spine2/node1:2 rack2/spine1/node2:2 rack2/spine2/node3:2"),
        gang("g", pods=4, gpus=1, level="block"),
        Placed({"node2": 2, "node3": 2}),
    ),
    scenario(
        "pods go to a partly taken rack, the emptier node of it included",
        f"{KAI_TOPOLOGY} 'Required topology with multiple levels - schedule all tasks on the same partially occupied "
        "rack'",
        tree("rack1/spine1/node0:1/2 rack1/spine2/node1:2"),
        gang("g", pods=2, gpus=1, level="block"),
        Placed({"node0": 1, "node1": 1}),
    ),
    scenario(
        "four pods wait when each rack has three GPUs free",
        f"{KAI_TOPOLOGY} 'Required topology with multiple levels - job remains pending as no available rack can be "
        "found'",
        tree("rack1/spine1/node0:1/2 rack1/spine2/node1:2 rack2/spine1/node2:1/2 rack2/spine2/node3:2"),
        gang("g", pods=4, gpus=1, level="block"),
        Waits(Reason.NO_DOMAIN_LARGE_ENOUGH, 4, 3),
    ),
    scenario(
        "of two racks that hold the gang the fuller one is taken",
        f"{KAI_TOPOLOGY} 'Required topology constraint - prefer packed domain'",
        tree("z/rack1/node0:10 z/rack2/node1:9/10"),
        gang("g", gpus=1, level="rack"),
        Placed({"node1": 1}),
    ),
    scenario(
        "three pods take the only rack with three nodes",
        f"{KUEUE_TOPOLOGY} 'rack required; multiple Pods fit in a rack; BestFit'",
        DEFAULT,
        gang("g", pods=3, gpus=1, level="rack"),
        Placed({"x5": 1, "x1": 1, "x6": 1}),
    ),
    scenario(
        "two pods take the rack that is just large enough, not the larger one",
        f"{KUEUE_TOPOLOGY} 'rack required; multiple Pods fit in some racks; BestFit'",
        DEFAULT,
        gang("g", pods=2, gpus=1, level="rack"),
        Placed({"x4": 2}),
    ),
    scenario(
        "four pods wait where the largest rack holds three",
        f"{KUEUE_TOPOLOGY} 'rack required; too many pods to fit in any rack; BestFit'",
        DEFAULT,
        gang("g", pods=4, gpus=1, level="rack"),
        Waits(Reason.NO_DOMAIN_LARGE_ENOUGH, 4, 3),
    ),
    scenario(
        "four pods in one block may stand in two of its racks",
        f"{KUEUE_TOPOLOGY} 'block required; Pods fit in a block spread across two racks; BestFit'",
        DEFAULT,
        gang("g", pods=4, gpus=1, level="block"),
        Placed({"x3": 1, "x5": 1, "x1": 1, "x6": 1}),
    ),
    scenario(
        "one pod goes to the tightest block",
        f"{KUEUE_TOPOLOGY} 'block required; single Pod fits in a block and a single rack; BestFit'",
        DEFAULT,
        gang("g", gpus=1, level="block"),
        Placed({"b2": 1}, "block"),
    ),
    scenario(
        "five pods wait where the largest block holds four",
        f"{KUEUE_TOPOLOGY} 'block required; too many Pods to fit requested; BestFit'",
        DEFAULT,
        gang("g", pods=5, gpus=1, level="block"),
        Waits(Reason.NO_DOMAIN_LARGE_ENOUGH, 5, 4),
    ),
    scenario(
        "four pods fill one of two equal blocks, one pod a host",
        f"{KUEUE_TOPOLOGY} 'block required; 4 pods fit into one host each; BestFit'",
        BINARY,
        gang("g", pods=4, gpus=1, level="block"),
        Placed({"x3": 1, "x5": 1, "x1": 1, "x6": 1}),
    ),
    scenario(
        "pods that ask for memory alone go to the rack with the least of it that holds them",
        f"{KUEUE_TOPOLOGY} 'rack required; single Pod requiring memory; BestFit'",
        (
            node("x3", gpus=0, memory_gib=1, block="b1", rack="r1"),
            *(node(name, gpus=0, memory_gib=1, block="b1", rack="r2") for name in ("x5", "x1", "x6")),
            node("x2", gpus=0, memory_gib=1, block="b2", rack="r1"),
            node("x4", gpus=0, memory_gib=4, block="b2", rack="r2"),
        ),
        gang("g", roles=(role(pods=4, gpus=0, memory_mib=1),), level="rack"),
        Placed({"x3": 4}),
    ),
    scenario(
        "nodes without a rack are in none",
        f"{KUEUE_TOPOLOGY} 'only nodes with matching levels are considered; no host label on node; BestFit'",
        tuple(nodes(16)),
        gang("g", gpus=1, level="rack"),
        Waits(Reason.NO_DOMAIN_LARGE_ENOUGH),
    ),
    scenario(
        "three pods do not cross two switches",
        f"{VOLCANO} 'hard network topology constrain, can not allocate job when cross highestTierAllowed tier'",
        SWITCHES,
        gang("g", pods=3, gpus=2, level="rack"),
        Waits(Reason.NO_DOMAIN_LARGE_ENOUGH, 6, 4),
    ),
    scenario(
        "three pods may stand anywhere below the second tier",
        f"{VOLCANO} 'hard network topology constrain, can allocate job when highestTierAllowed not reached'",
        SWITCHES,
        gang("g", pods=3, gpus=2, level="block"),
        Placed({"s2": 3}, "block"),
    ),
    scenario(
        "two pods fill one of two equal switches",
        f"{VOLCANO} 'hard network topology constrain, can allocate job when multi hyperNodes are available'",
        SWITCHES,
        gang("g", pods=2, gpus=2, level="rack"),
        Placed({"s0-n1": 1, "s0-n2": 1}),
    ),
    scenario(
        "a pod that must be alone on its host takes the tightest one",
        f"{KUEUE_TOPOLOGY} 'host required; single Pod fits in the host; BestFit'",
        tree("b/r/x1:2 b/r/x3:1 b/r/x5:2"),
        gang("g", gpus=1, level="host"),
        Placed({"x3": 1}),
    ),
    scenario(
        "leader and workers stay in the block that holds the leader on one of its nodes",
        f"{KUEUE_TOPOLOGY} 'balanced placement; fallback to BestFit when leader worker set cannot meet threshold'",
        tree("b1/r1/x1:3 b1/r2/x2:3 b1/r3/x3:8 b2/r4/x4:11"),
        gang("g", roles=(role("leader", gpus=5), role("workers", pods=7, gpus=1)), level="block"),
        Placed({"b1": 8}, "block"),
    ),
)

PREFERRED = (
    scenario(
        "both pods go to the rack that has room for both, if they would like to stand together",
        f"{KAI_TOPOLOGY} 'Preferred topology - schedule job on the same rack'",
        tree("b/rack1/node0:1/2 b/rack2/node1:2"),
        gang("g", pods=2, gpus=1, level_preferred="rack"),
        Placed({"node1": 2}),
    ),
    scenario(
        "a gang starts in two racks when none has room for all of it and it only would have liked one",
        f"{KAI_TOPOLOGY} 'Preferred topology - schedule job even if preferred constraint can't be met'",
        tree("b/rack1/node0:1/2 b/rack2/node1:1/2"),
        gang("g", pods=2, gpus=1, level_preferred="rack"),
        Placed({"node0": 1, "node1": 1}),
    ),
    scenario(
        "what is required holds when what is preferred within it cannot be had",
        f"{KAI_TOPOLOGY} 'Combined preferred and required topology constraints - schedule job although preferred "
        "constraint cannot be satisfied'",
        tree("rack1/spine1/node0:0/2 rack1/spine2/node1:1/2 rack2/spine1/node2:1/2 rack2/spine2/node3:1/2"),
        gang("g", pods=2, gpus=1, level="block", level_preferred="rack"),
        Placed({"node2": 1, "node3": 1}),
    ),
    scenario(
        "one host is taken if it holds all, and one host was preferred",
        f"{KUEUE_TOPOLOGY} 'choose the node that can accommodate all Pods'",
        tree("b1/r1/x3:2 b1/r1/x5:1 b1/r1/x1:1"),
        gang("g", pods=2, gpus=1, level="block", level_preferred="host"),
        Placed({"x3": 2}),
    ),
    scenario(
        "one rack of four small nodes is preferred to two racks of one large node each",
        f"{KUEUE_TOPOLOGY} 'minimize the number of used racks before optimizing the number of nodes; BestFit'",
        tree("b1/r1/x3:2 b1/r2/x5:2 b1/r3/x1:1 b1/r3/x6:1 b1/r3/x2:1 b1/r3/x4:1"),
        gang("g", pods=4, gpus=1, level="block", level_preferred="rack"),
        Placed({"x1": 1, "x6": 1, "x2": 1, "x4": 1}),
    ),
    scenario(
        "four pods that would have liked one rack and fit into none stay in one block",
        f"{KUEUE_TOPOLOGY} 'rack preferred; but only block can accommodate the workload; BestFit'",
        DEFAULT,
        gang("g", pods=4, gpus=1, level_preferred="rack"),
        Placed({"x3": 1, "x5": 1, "x1": 1, "x6": 1}),
    ),
    scenario(
        "twenty pods that would have liked one rack take the block of two even racks, which holds just them",
        f"{KUEUE_TOPOLOGY} 'balanced placement; select correct block taking into account pruning'",
        tree(
            "b1/r1/x1:5 b1/r1/x2:5 b1/r2/x3:5 b1/r2/x4:5 b2/r3/x5:10 b2/r3/x6:4 b2/r3/x7:4 b2/r3/x8:4 b2/r4/x9:5 "
            "b2/r5/x10:5"
        ),
        gang("g", pods=20, gpus=1, level_preferred="block"),
        Placed({"x1": 5, "x2": 5, "x3": 5, "x4": 5}),
    ),
    scenario(
        "three pods start over two switches when one would only have been preferred",
        f"{VOLCANO} 'soft network topology constrain, can allocate job when resources are enough'",
        SWITCHES,
        gang("g", pods=3, gpus=2, level_preferred="rack"),
        Placed({"s2": 3}, "block"),
    ),
)


def sliced(pods: int, slice_pods: int, each_in: str, **fields: Any) -> Pending:
    """A gang of one role whose slices each stand in one domain of a level; one GPU a pod."""
    one = role(pods=pods, gpus=1, level_required=each_in, slice_pods=slice_pods)
    return gang("g", roles=(one,), **fields)


TWO_RACKS = tree("b1/r1/x3:1 b1/r1/x5:1 b1/r2/x1:1 b1/r2/x6:1 b1/r2/x2:1 b2/r1/x4:1 b2/r1/x7:1")

SLICES = (
    scenario(
        "three slices of two pods take a host each, and leave the third GPU of each",
        f"{KUEUE_TOPOLOGY} 'block required for podset; host required for slices; BestFit'",
        tree("b1/r1/x3:3 b1/r1/x5:3 b1/r1/x1:3"),
        sliced(6, 2, "host", level="block"),
        Placed({"x1": 2, "x3": 2, "x5": 2}),
    ),
    scenario(
        "six slices of two pods leave alone the host that they would not fill",
        f"{KUEUE_TOPOLOGY} 'block required for podset; host required for slices; prioritize more free slice capacity "
        "first and then tight fit; BestFit'",
        tree("b1/r1/x3:6 b1/r1/x5:5 b1/r1/x1:4 b1/r1/x6:2"),
        sliced(12, 2, "host", level="block"),
        Placed({"x1": 4, "x3": 6, "x6": 2}),
    ),
    scenario(
        "two slices of two pods take the two hosts that they fill",
        f"{KUEUE_TOPOLOGY} 'block required for podset; host required for slices; select domains with tight fit; "
        "BestFit'",
        tree("b1/r1/x3:3 b1/r1/x5:2 b1/r1/x1:2"),
        sliced(4, 2, "host", level="block"),
        Placed({"x1": 2, "x5": 2}),
    ),
    scenario(
        "three slices of two pods fill two hosts rather than cut into a third",
        f"{KUEUE_TOPOLOGY} 'block required for podset; host required for slices; optimize last domain; BestFit'",
        tree("b1/r1/x3:4 b1/r1/x5:3 b1/r1/x1:2"),
        sliced(6, 2, "host", level="block"),
        Placed({"x1": 2, "x3": 4}),
    ),
    scenario(
        "of two slices in one block each stands in one rack",
        f"{KUEUE_TOPOLOGY} 'block required for podset; rack required for slices; BestFit'",
        TWO_RACKS,
        sliced(4, 2, "rack", level="block"),
        Placed({"x3": 1, "x5": 1, "x1": 1, "x2": 1}),
    ),
    scenario(
        "slices stand in two blocks where no block has two racks with room, if one block was only preferred",
        f"{KUEUE_TOPOLOGY} 'block preferred for podset; rack required for slices; BestFit'",
        DEFAULT,
        sliced(4, 2, "rack", level_preferred="block"),
        Placed({"x1": 1, "x5": 1, "x4": 2}),
    ),
    scenario(
        "five slices of five pods fill the two smaller hosts",
        f"{KUEUE_TOPOLOGY} 'balanced placement; select optmial set of domains; with slices'",
        tree("b1/r1/x1:20 b1/r1/x2:15 b1/r1/x3:10"),
        sliced(25, 5, "host", level_preferred="rack"),
        Placed({"x2": 15, "x3": 10}),
    ),
    scenario(
        "five slices of five pods take the rack of two hosts before two racks of one",
        f"{KUEUE_TOPOLOGY} 'balanced placement; select correct block; prefer blocks with single rack; with slices'",
        tree("b1/r1/x1:15 b1/r2/x2:15 b1/r3/x3:15 b1/r3/x4:15"),
        sliced(25, 5, "host", level_preferred="rack"),
        Placed({"x3": 15, "x4": 10}),
    ),
    scenario(
        "slices wait where the free GPUs are enough and all racks but one too small",
        f"{KUEUE_TOPOLOGY} 'block required for podset; rack required for slices; BestFit', with two slices of three",
        TWO_RACKS,
        sliced(6, 3, "rack"),
        Waits(Reason.NO_DOMAIN_LARGE_ENOUGH, 2, 1),
    ),
)

ROLES = (
    scenario(
        "each role has its rack, and both racks are in one block",
        f"{KAI_LEVELS} 'Advanced Example: Cross-Subgroup and Hierarchical Constraints'",
        tree("b1/r1/a1:2 b1/r1/a2:2 b1/r2/a3:2 b2/r1/c1:2 b2/r1/c2:2 b2/r2/c3:2 b2/r2/c4:2"),
        gang(
            "g",
            roles=(
                role("prefill", pods=4, gpus=1, level_required="rack"),
                role("decode", pods=4, gpus=1, level_required="rack"),
            ),
            level="block",
        ),
        Placed({"c1": 2, "c2": 2, "c3": 2, "c4": 2}),
    ),
    scenario(
        "a role on one host leaves the rack to the role that needs it",
        f"{KAI_LEVELS} 'Example: Independent Subgroup Constraints', one of them on one host",
        tree("b1/r1/a1:4 b1/r1/a2:4 b1/r2/a3:4"),
        gang(
            "g",
            roles=(
                role("decode", pods=8, gpus=1, level_required="rack"),
                role("prefill", pods=4, gpus=1, level_required="host"),
            ),
            level="block",
        ),
        Placed({"a1": 4, "a2": 4, "a3": 4}),
    ),
    scenario(
        "a gang waits whole where one of its roles has no rack large enough",
        f"{KAI_LEVELS} 'Example: Independent Subgroup Constraints', without a rack large enough",
        tree("b1/r1/a1:2 b1/r2/a2:2 b1/r3/a3:2"),
        gang(
            "g",
            roles=(
                role("leader", gpus=1),
                role("worker", pods=3, gpus=1, level_required="rack"),
            ),
            level="block",
        ),
        Waits(Reason.NO_DOMAIN_LARGE_ENOUGH, 3, 2),
    ),
)

APART = (
    scenario(
        "a role whose pods stand apart shares each of its hosts with another role",
        f"{NOMAD} TestDistinctHostsIterator_TaskGroupDistinctHosts",
        tree("b/r/x1:2 b/r/x2:2"),
        gang("g", roles=(role("bar", pods=2, gpus=1, per_host=1), role("baz", pods=2, gpus=1))),
        Placed({"x1": 2, "x2": 2}),
    ),
    scenario(
        "a third pod has no host of its own",
        f"{NOMAD} TestDistinctHostsIterator_JobDistinctHosts_InfeasibleCount",
        tree("b/r/x1:2 b/r/x2:2"),
        gang("g", roles=(role(pods=3, gpus=1, per_host=1),)),
        Waits(Reason.LARGER_THAN_CLUSTER, 3, 2),
    ),
    scenario(
        "pods stand apart on the hosts that are not taken",
        f"{NOMAD} TestDistinctHostsIterator_JobDistinctHosts",
        tree("b/r/x1:0/4 b/r/x2:4 b/r/x3:4"),
        gang("g", roles=(role(pods=2, gpus=1, per_host=1),)),
        Placed({"x2": 1, "x3": 1}),
    ),
)

TOPOLOGY = (*REQUIRED, *PREFERRED, *SLICES, *ROLES, *APART)
