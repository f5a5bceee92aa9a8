"""Between what people and engines speak and what the journal stores: specs, request classes, digests.

Exact inverses of one another where both directions exist; nothing here decides.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

import msgspec

from federation.core.records import AnyRecord, Resized, RoleExtra, RoleShape, Submitted, encode_record
from placement.model import ANY_NODE, GangRequest, LabelRule, NodeRule, PodGroup, RoleRequest, Toleration
from placement.quota import ALL_PRODUCTS, gpus_of_role

ANY_PRODUCT: Final = ""  # what roles that name no product are charged to
SPEC_JSON_BYTES_MAX: Final = 256 * 1024  # DESIGN §15: one manifest
DIGEST_CHARS: Final = 32  # 128 bits: collisions are not a matter of chance
PACKED_FROM_BYTES: Final = 512  # of a manifest: smaller ones the entries and snapshots pack, which hold many alike
TEXTS_BYTES_MAX: Final = 16 * 1024 * 1024  # of all remembered: thousands of different templates

_canonical: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


class Spec(NamedTuple):
    """A PodGroup as the journal keeps it: the JSON of each field that is not as by default, by name, and of all."""

    fields: Mapping[str, str]
    json: bytes  # sorted keys, no spaces; equal groups give equal bytes


class Texts:
    """The canonical JSON of values, faster where equal ones were seen lately: most groups are alike but for names."""

    __slots__ = ("_known", "bytes_held")

    def __init__(self) -> None:
        self._known: dict[bytes, str] = {}
        self.bytes_held = 0

    def of(self, value: object) -> str:
        """ValueError or RecursionError for what no JSON can hold."""
        if not isinstance(value, dict | list):
            return _canonical.encode(value)
        try:
            key = _as_written(value)  # tells apart whatever JSON does, and more: the order of keys
        except OverflowError:  # an integer of more than 64 bits
            return _canonical.encode(value)
        found = self._known.get(key)
        if found is None:
            found = _canonical.encode(value)
            self._remember(key, found)
        return found

    def _remember(self, key: bytes, text: str) -> None:
        if self.bytes_held + len(key) + len(text) > TEXTS_BYTES_MAX:
            self._known.clear()
            self.bytes_held = 0
        self._known[key] = text
        self.bytes_held += len(key) + len(text)


_as_written: Final = msgspec.msgpack.Encoder().encode
_texts: Final = Texts()


def spec_of(group: PodGroup) -> Spec:
    """ValueError or RecursionError for a template that no JSON can hold."""
    plain = group.model_dump(mode="json", exclude_defaults=True)
    fields = {name: _texts.of(plain[name]) for name in sorted(plain)}
    return Spec(fields, "".join(("{", ",".join([f'"{name}":{text}' for name, text in fields.items()]), "}")).encode())


def canonical_json(group: PodGroup) -> bytes:
    """The one JSON of this PodGroup. ValueError or RecursionError for a template that no JSON can hold."""
    return spec_of(group).json


def body_digest(spec_json: bytes) -> str:
    return hashlib.sha256(spec_json).hexdigest()[:DIGEST_CHARS]


def pack_spec(spec_json: bytes) -> bytes:
    return zlib.compress(spec_json, 6 if len(spec_json) >= PACKED_FROM_BYTES else 0)


def unpack_spec(spec: bytes) -> PodGroup:
    """The PodGroup in a record's `spec`; ValueError when it is larger than a manifest may be or unreadable."""
    unpacker = zlib.decompressobj()
    raw = unpacker.decompress(spec, SPEC_JSON_BYTES_MAX)
    if not unpacker.eof:
        raise ValueError(f"spec unpacks to more than {SPEC_JSON_BYTES_MAX} bytes")
    return PodGroup.model_validate_json(raw)


def shapes_of(request: GangRequest) -> tuple[RoleShape, ...]:
    return tuple(
        RoleShape(
            role.name,
            role.count,
            role.min_count,
            role.gpus,
            role.gpu_milli,
            role.mig_profile,
            role.cpu_milli,
            role.memory_mib,
            role.products,
        )
        for role in request.roles
    )


NO_EXTRA: Final = RoleExtra()


def extras_of(request: GangRequest) -> tuple[RoleExtra, ...]:
    """What the shapes do not say, role by role; nothing where there is nothing to say."""
    extras = tuple(
        RoleExtra(
            role.nodes.terms,
            role.nodes.tolerations,
            role.level_required,
            role.level_preferred,
            role.slice_pods,
            role.per_host,
        )
        for role in request.roles
    )
    return extras if any(one != NO_EXTRA for one in extras) else ()


def _node_rule(extra: RoleExtra) -> NodeRule:
    terms = tuple(tuple(LabelRule(*rule) for rule in term) for term in extra.terms)
    return NodeRule(terms, tuple(Toleration(*one) for one in extra.tolerations))


class HoldsRequest(Protocol):
    """A `Submitted` record, or a request class in a snapshot."""

    @property
    def roles(self) -> tuple[RoleShape, ...]: ...
    @property
    def min_count(self) -> int: ...
    @property
    def level_required(self) -> str: ...
    @property
    def level_preferred(self) -> str: ...
    @property
    def cluster_labels(self) -> tuple[tuple[str, tuple[str, ...]], ...]: ...
    @property
    def cluster_labels_not(self) -> tuple[tuple[str, tuple[str, ...]], ...]: ...
    @property
    def lease_classes(self) -> tuple[str, ...]: ...
    @property
    def role_extras(self) -> tuple[RoleExtra, ...]: ...
    @property
    def data(self) -> tuple[tuple[str, int], ...]: ...
    @property
    def elastic(self) -> bool: ...


ClassKey = tuple[
    tuple[RoleShape, ...],
    int,
    str,
    str,
    tuple[tuple[str, tuple[str, ...]], ...],
    tuple[tuple[str, tuple[str, ...]], ...],
    tuple[str, ...],
    tuple[RoleExtra, ...],
    tuple[tuple[str, int], ...],
    bool,
]


def class_key(record: HoldsRequest) -> ClassKey:
    """Equal where `request_of` is, and cheaper to make and to look up."""
    return (
        record.roles,
        record.min_count,
        record.level_required,
        record.level_preferred,
        record.cluster_labels,
        record.cluster_labels_not,
        record.lease_classes,
        record.role_extras,
        record.data,
        record.elastic,
    )


def request_of(record: HoldsRequest) -> GangRequest:
    """The request class that is stored there; ValueError where the roles and what else they ask for do not agree."""
    extras = record.role_extras or (NO_EXTRA,) * len(record.roles)
    return GangRequest(
        roles=tuple(
            RoleRequest(
                name=role.name,
                count=role.count,
                min_count=role.min_count,
                gpus=role.gpus,
                gpu_milli=role.gpu_milli,
                mig_profile=role.mig_profile,
                cpu_milli=role.cpu_milli,
                memory_mib=role.memory_mib,
                products=role.products,
                nodes=ANY_NODE if extra is NO_EXTRA else _node_rule(extra),
                level_required=extra.level_required,
                level_preferred=extra.level_preferred,
                slice_pods=extra.slice_pods,
                per_host=extra.per_host,
            )
            for role, extra in zip(record.roles, extras, strict=True)
        ),
        min_count=record.min_count,
        level_required=record.level_required,
        level_preferred=record.level_preferred,
        cluster_labels=record.cluster_labels,
        cluster_labels_not=record.cluster_labels_not,
        lease_classes=record.lease_classes,
        data=record.data,
        elastic=record.elastic,
    )


def charge_of(request: GangRequest) -> tuple[tuple[str, int], ...]:
    """GPUs by quota line that one home of this class takes; agrees with `placement.quota.gpus_charged`.

    A role that accepts several products is charged to each, one that accepts any to `ANY_PRODUCT`, which counts
    towards every product's line.
    """
    by_line: dict[str, int] = {}
    for role in request.roles:
        gpus = gpus_of_role(role)
        if gpus:
            for line in (ALL_PRODUCTS, *(role.products or (ANY_PRODUCT,))):
                by_line[line] = by_line.get(line, 0) + gpus
    return tuple(sorted(by_line.items()))


def request_digest(record: AnyRecord) -> str:
    """What must be equal for two requests with one id to be the same request: all but who, when and by what code."""
    if isinstance(record, Submitted):
        return record.body_digest
    bare = msgspec.structs.replace(record, actor="", at_ms=0, cause="", schema_version=0)
    if isinstance(bare, Resized):  # what it made of the wish depends on how the group ran then
        bare = msgspec.structs.replace(bare, token="", cluster="", counts=(), at_most=())
    return hashlib.sha256(encode_record(bare)).hexdigest()[:DIGEST_CHARS]
