"""A gang request taken apart once: which shapes are asked for, and in which order topology levels are tried.

Static: nothing here knows what is free. Requests that cannot be answered by counting pods per node are not `quick`;
for those `placement.assign` is asked itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from placement.assign import levels_tried
from placement.fleet import CPU_MILLI, GPUS, Shape, shape_of
from placement.gain import shapes_asked
from placement.layout import ANYWHERE, KNOWN_LEVELS, NodeFilter, named_level
from placement.model import GangRequest, Level
from placement.refusal import on_one_host
from placement.score import units_of

LevelKey = tuple[str, str]
"""(level, the level around it), both named: see `NodeLayout.domains`."""

LabelKey = tuple[tuple[tuple[str, tuple[str, ...]], ...], tuple[tuple[str, tuple[str, ...]], ...], tuple[str, ...]]
"""All by which a request chooses clusters before anybody looks at nodes."""

EVERYWHERE: LevelKey = (ANYWHERE, ANYWHERE)


@dataclass(frozen=True, slots=True)
class Attempt:
    """`count` pods of `shape` in one domain of `level`; on one host the whole gang counts as a single pod."""

    shape: Shape
    count: int
    level: LevelKey
    on_host: bool
    preferred_met: bool


@dataclass(frozen=True, slots=True, eq=False)
class RequestClass:
    """`attempts` in the order of trying, the last the one that the gang must have at least; empty: it fits nowhere."""

    request: GangRequest
    attempts: tuple[Attempt, ...]
    quick: bool
    nodes: NodeFilter  # of all roles, if they agree
    resource: int  # what fullness is measured in: GPUs, or CPU for gangs without GPUs
    asked: int  # of that resource, by the whole gang
    labels: LabelKey
    shapes: tuple[tuple[Shape, int], ...]  # with the pods of each: see `placement.gain.shapes_asked`
    units: int  # what its cost is divided by: see `placement.score.units_of`
    gpu_nodes: tuple[NodeFilter, ...]  # of the roles that ask for whole GPUs

    @property
    def single_role(self) -> bool:
        return len(self.request.roles) == 1


def request_class(request: GangRequest) -> RequestClass:
    """The class of `request`; equal requests have equal ones."""
    shapes = {shape_of(role) for role in request.roles}
    plain = len(shapes) == 1 and not request.nested and not any(shape.devices or shape.apart for shape in shapes)
    attempts = _attempts(request, next(iter(shapes))) if plain else None
    return RequestClass(
        request=request,
        attempts=attempts or (),
        quick=attempts is not None,
        nodes=shape_of(request.roles[0]).nodes,
        resource=GPUS if request.gpus else CPU_MILLI,
        asked=request.gpus or sum(role.count * role.cpu_milli for role in request.roles),
        labels=(request.cluster_labels, request.cluster_labels_not, request.lease_classes),
        shapes=shapes_asked(request),
        units=units_of(request),
        gpu_nodes=tuple({shape_of(role).nodes: None for role in request.roles if role.gpus}),
    )


def _attempts(request: GangRequest, shape: Shape) -> tuple[Attempt, ...] | None:
    """None where one of them needs more than counting: one host inside a domain of another level."""
    found: list[Attempt] = []
    for level, within, preferred_met in levels_tried(request):
        key = named_level(level), named_level(within)
        if not KNOWN_LEVELS.issuperset(key):
            continue
        if key[0] != Level.HOST:
            found.append(Attempt(shape, request.pods, key, on_host=False, preferred_met=preferred_met))
        elif key[1] == ANYWHERE:
            whole = on_one_host(request)
            assert whole is not None, "roles of one shape accept the same products"
            found.append(Attempt(whole, 1, key, on_host=True, preferred_met=preferred_met))
        else:
            return None
    return tuple(found)
