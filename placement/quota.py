"""What a queue may use, in whole GPUs by product, and what a gang would be charged. Fair share does not live here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from placement.devices import gpus_worth
from placement.fleet import device_of
from placement.model import Because, GangRequest, QueueName, Reason, RoleRequest

ALL_PRODUCTS = "*"


@dataclass(frozen=True, slots=True)
class QuotaLine:
    """`used` counts every home of the queue once, from `Placed` until the home ends."""

    limit: int
    used: int = 0


QuotaLines = Mapping[str, QuotaLine]  # by product; ALL_PRODUCTS limits their sum
Quotas = Mapping[QueueName, QuotaLines]

UNLIMITED: Quotas = {}


def gpus_charged(request: GangRequest, product: str) -> int:
    """GPUs of `request` charged to the quota of `product`: those of every role that may run on it.

    A role that accepts several products (or any) is charged to each, so that no limit is passed wherever it ends up.
    """
    if product == ALL_PRODUCTS:
        return sum(gpus_of_role(role) for role in request.roles)
    return sum(gpus_of_role(role) for role in request.roles if not role.products or product in role.products)


def gpus_of_role(role: RoleRequest) -> int:
    """What all pods of a role are charged. Parts of GPUs count as much as they are of one, and together are rounded up
    to whole GPUs: a share of 250 milli is a quarter, an instance of 3g.40gb three sevenths."""
    device = device_of(role)
    return role.count * role.gpus + (math.ceil(role.count * gpus_worth(device)) if device is not None else 0)


def quota_refusal(request: GangRequest, queue: QueueName, lines: QuotaLines) -> tuple[Because, ...]:
    """Which lines of the queue's quota `request` would pass, by product; empty when it stays within all of them."""
    found: list[Because] = []
    for product, line in sorted(lines.items()):
        needs, left = gpus_charged(request, product), max(0, line.limit - line.used)
        if needs > left:
            detail = f"queue {queue}: limit {line.limit}, used {line.used}"
            found.append(Because(Reason.QUOTA_EXHAUSTED, needs, left, product_gpus(product), detail))
    return tuple(found)


def product_gpus(product: str) -> str:
    """What a line of a quota counts, in words."""
    return "GPUs" if product == ALL_PRODUCTS else f"{product} GPUs"


def charge(request: GangRequest, lines: QuotaLines, *, times: int = 1) -> dict[str, QuotaLine]:
    """The lines after `request` was placed; with `times` -1, after its place was taken back."""
    return {
        product: QuotaLine(line.limit, line.used + times * gpus_charged(request, product))
        for product, line in lines.items()
    }
