"""How many more pods each node takes: a kubelet turns away all beyond its node's `pods`, whatever else is free.

Nearly always there is room for more pods than fit by what they ask for. So nodes are chosen without a look at it, and
again only where a node would get too many. Which cluster has such room the placer does not know: refusals tell it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from cluster_agents.core.inventory import Inventory
from cluster_agents.core.pods import POD_PLACE
from placement.assignment import Assignment
from placement.fleet import NodeTable, device_of
from placement.model import Because, GangRequest, Reason, RoleRequest

Ask = Callable[[NodeTable, GangRequest], Assignment | tuple[Because, ...]]

UNIT: Final = "places for pods on nodes that it may use"


def within_pod_places(inventory: Inventory, request: GangRequest, ask: Ask) -> Assignment | tuple[Because, ...]:
    """What `ask` says of `request`, on nodes none of which gets more pods than it takes; or that there are too few
    places. Pods with parts of GPUs find no other nodes than `ask` gives them: few of those fit on a node anyway."""
    answer = ask(inventory.table(), request)
    if not isinstance(answer, Assignment) or _fits(inventory, answer):
        return answer
    again = ask(inventory.table_of_places(), replace(request, roles=tuple(map(_asking_for_places, request.roles))))
    if isinstance(again, Assignment) and _fits(inventory, again):
        return replace(again, request=request)
    return (_too_few(inventory, request),)


def _fits(inventory: Inventory, chosen: Assignment) -> bool:
    pods = Counter[str]()
    for part in chosen.parts:
        pods[part.node] += part.pods
    return all(count <= inventory.pods_left(node) for node, count in pods.items())


def _asking_for_places(role: RoleRequest) -> RoleRequest:
    """It asks for one such device a pod: a name that no MIG profile has."""
    return role if device_of(role) is not None else replace(role, mig_profile=POD_PLACE)


def _too_few(inventory: Inventory, request: GangRequest) -> Because:
    table = inventory.table()
    usable = table.accepting((), ())
    for role in request.roles:
        usable = usable | table.accepting(role.products, (role.nodes,))
    places = sum(inventory.pods_left(name) for name, may in zip(table.names, usable.tolist(), strict=True) if may)
    if places < request.pods:
        return Because(Reason.INSUFFICIENT_PODS, request.pods, places, UNIT)
    return Because(Reason.INSUFFICIENT_PODS, detail="the nodes that have room for it take too few pods more")
