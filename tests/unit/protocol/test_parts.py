"""Reports too large for one message: split by content, each part small enough, the whole put together again."""

from __future__ import annotations

import msgspec
import pytest

from federation.protocol.messages import (
    DEVICE_KINDS_MAX,
    LIVE_TOKENS_MAX,
    MESSAGE_BYTES_MAX,
    NODE_KINDS_MAX,
    NodeKind,
    NodeKinds,
    NodeRows,
    Report,
    Stamp,
    encode_message,
)
from federation.protocol.parts import KINDS_BYTES_MAX, PARTS_MAX, ROWS_PER_PART_MAX, TOKENS_PER_PART_MAX, join, split
from placement.devices import KINDS_PER_NODE_MAX
from placement.model import NODES_PER_CLUSTER_MAX

LABEL = "x" * 63  # the longest value of a Kubernetes label
AMOUNT = 2**53


def names(count: int) -> tuple[str, ...]:
    """As long as an object's name can be."""
    return tuple(f"{n:0253d}" for n in range(count))


def rows(count: int, gone: int = 0) -> NodeRows:
    labels, amounts = (LABEL,) * count, (AMOUNT,) * count
    return NodeRows(
        name=names(count),
        product=labels,
        cpu_milli=amounts,
        memory_mib=amounts,
        gpus=amounts,
        gpus_free=amounts,
        cpu_milli_total=amounts,
        memory_mib_total=amounts,
        clique=labels,
        rack=labels,
        block=labels,
        zone=labels,
        usable=(True,) * count,
        gone=names(gone),
    )


def report(columns: NodeRows, tokens: int | None = None) -> Report:
    told = tuple(f"{'l' * 24}.{n:016d}" for n in range(tokens)) if tokens is not None else None
    return Report(
        cluster="c" * 63,
        lineage="l" * 24,
        stamp=Stamp(3, 7),
        follows=Stamp(3, 6),
        applied=9,
        rows=columns,
        tokens=told,
        uids=tuple(f"{token}-uid" for token in told or ()),
    )


def kinds_of(nodes: int) -> NodeKinds:
    """As large as all kinds together may be."""
    size = KINDS_BYTES_MAX // NODE_KINDS_MAX
    kinds = tuple(NodeKind(((f"{number:02}" + "k" * 300, "v" * (size - 320)),)) for number in range(NODE_KINDS_MAX))
    at = tuple(node % NODE_KINDS_MAX for node in range(nodes))
    devices = tuple(f"{number}g.{'1' * 8}gb" for number in range(DEVICE_KINDS_MAX))
    some = tuple((number, 4_096, 4_096) for number in range(KINDS_PER_NODE_MAX))
    told = {"devices": devices, "devices_at": (some,) * nodes}
    return NodeKinds(kinds=kinds, at=at, tainted=(True,) * nodes, unhealthy=(4_096,) * nodes, **told)


def test_labels_and_taints_of_nodes_come_with_each_part_and_all_parts_say_the_whole() -> None:
    whole = msgspec.structs.replace(report(rows(1_201, 100), 200), node_kinds=kinds_of(1_201))
    parts = split(whole)
    assert [len(part.node_kinds.at) for part in parts] == [500, 500, 201]
    assert all(len(encode_message(part)) <= MESSAGE_BYTES_MAX for part in parts)
    assert join(parts).node_kinds == whole.node_kinds


@pytest.mark.parametrize(("nodes", "parts"), [(0, 1), (ROWS_PER_PART_MAX, 1), (ROWS_PER_PART_MAX + 1, 2), (5_000, 10)])
def test_a_report_is_split_by_its_nodes(nodes: int, parts: int) -> None:
    assert len(split(report(rows(nodes)))) == parts


@pytest.mark.parametrize(
    ("nodes", "gone", "tokens"),
    [
        (NODES_PER_CLUSTER_MAX, 0, None),
        (NODES_PER_CLUSTER_MAX, NODES_PER_CLUSTER_MAX, LIVE_TOKENS_MAX),
        (ROWS_PER_PART_MAX, 100, 200),
        (ROWS_PER_PART_MAX, 101, 201),
        (1, 0, TOKENS_PER_PART_MAX + 1),
        (0, 1_801, 0),
    ],
)
def test_each_part_fits_into_a_message_and_all_of_them_say_the_whole(nodes: int, gone: int, tokens: int | None) -> None:
    whole = report(rows(nodes, gone), tokens)
    parts = split(whole)
    assert len(parts) <= PARTS_MAX
    assert [len(encode_message(part)) <= MESSAGE_BYTES_MAX for part in parts] == [True] * len(parts)
    assert [part.stamp for part in parts] == [Stamp(3, 7 + index) for index in range(len(parts))]
    assert [part.follows for part in parts] == [Stamp(3, 6), *(part.stamp for part in parts[:-1])]
    assert [(part.part, part.parts) for part in parts] == [(index, len(parts)) for index in range(len(parts))]
    assert join(parts) == msgspec.structs.replace(whole, stamp=parts[-1].stamp)
