"""What the agent adds to an assignment: by which names its pods ask their nodes for parts of GPUs."""

from __future__ import annotations

from cluster_agents.core.inventory import Inventory
from placement.assignment import Assignment
from placement.fleet import NodeTable, device_of


def devices_of(chosen: Assignment, table: NodeTable, inventory: Inventory) -> tuple[str, ...]:
    """By rank, the resource of which each pod gets one part of a GPU; empty where no pod gets any."""
    asked = {role.name: device_of(role) for role in chosen.request.roles}
    if not any(asked.values()):
        return ()
    found: list[str] = []
    for part in chosen.parts:
        device = asked[part.role]
        kind = table.kind_at(part.node, device) if device is not None else ""
        found += [inventory.resource_of(part.node, kind) if kind else ""] * part.pods
    return tuple(found)
