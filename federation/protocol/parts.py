"""A report too large for one message, split by content and put together again (DESIGN §10).

Parts follow one another by stamp as deltas do, so that a lost one is noticed as a lost delta is. What a view does with
the whole is the views'.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

import msgspec

from federation.protocol.messages import NodeKinds, NodeRows, Report, Stamp

ROWS_PER_PART_MAX: Final = 500
"""A row is at most 650 bytes: a name of 253, six label values of 63 and eight numbers: 325 kB of the 512 KiB. Sixteen
kinds of parts of GPUs beside it take 130 bytes more: 65 kB."""
KINDS_BYTES_MAX: Final = 64 * 1024  # what the kinds of nodes may take of each part
GONE_PER_PART_MAX: Final = 1_800  # names of 253 bytes: 460 kB
GONE_BESIDE_ROWS_MAX: Final = 100  # 25 kB
TOKENS_PER_PART_MAX: Final = 3_000  # a token and a uid are at most 80 bytes each: 480 kB
TOKENS_BESIDE_ROWS_MAX: Final = 200  # 32 kB
PARTS_MAX: Final = 32  # 9 of 5,000 nodes, 3 of as many that are gone, 14 of 40,000 tokens

_Item = TypeVar("_Item")
_COLUMNS: Final = tuple(name for name in NodeRows.__struct_fields__ if name != "gone")


def split(report: Report) -> list[Report]:
    """The report itself if it is small; else parts whose stamps begin with its own, each small enough for a message.

    All say the same beside rows and tokens. `join` of all of them says what the report said, with the last one's stamp.
    """
    contents = list(_contents(report))
    if len(contents) == 1:
        return [report]
    parts: list[Report] = []
    for index, (rows, kinds, tokens, uids) in enumerate(contents):
        stamp = Stamp(report.stamp.boot, report.stamp.seq + index)
        follows = parts[-1].stamp if parts else report.follows
        fields = {"stamp": stamp, "follows": follows, "part": index, "parts": len(contents)}
        content = {"rows": rows, "node_kinds": kinds, "tokens": tokens, "uids": uids}
        parts.append(msgspec.structs.replace(report, **content, **fields))
    return parts


def join(parts: Sequence[Report]) -> Report:
    """One report of all parts, which follow one another: on what the first one follows, with the last one's stamp."""
    rows = NodeRows(
        **{name: _chain([getattr(part.rows, name) for part in parts]) for name in NodeRows.__struct_fields__}
    )
    kinds = NodeKinds(
        kinds=parts[0].node_kinds.kinds,
        at=_chain([part.node_kinds.at for part in parts]),
        tainted=_chain([part.node_kinds.tainted for part in parts]),
        devices=parts[0].node_kinds.devices,
        devices_at=_chain([part.node_kinds.devices_at for part in parts]),
        unhealthy=_chain([part.node_kinds.unhealthy for part in parts]),
    )
    told = [part.tokens for part in parts if part.tokens is not None]
    return msgspec.structs.replace(
        parts[-1],
        follows=parts[0].follows,
        part=0,
        parts=1,
        rows=rows,
        node_kinds=kinds,
        tokens=_chain(told) if told else None,
        uids=_chain([part.uids for part in parts]),
    )


def _contents(report: Report) -> Iterator[tuple[NodeRows, NodeKinds, tuple[str, ...] | None, tuple[str, ...]]]:
    rows, told, tokens, uids = report.rows, report.node_kinds, report.tokens, report.uids
    gone_beside = len(rows.gone) <= GONE_BESIDE_ROWS_MAX
    tokens_beside = len(tokens or ()) <= TOKENS_BESIDE_ROWS_MAX
    for start in range(0, max(1, len(rows.name)), ROWS_PER_PART_MAX):
        here = slice(start, start + ROWS_PER_PART_MAX)
        some = {name: getattr(rows, name)[here] for name in _COLUMNS}
        kinds = NodeKinds(
            kinds=told.kinds,
            at=told.at[here],
            tainted=told.tainted[here],
            devices=told.devices,
            devices_at=told.devices_at[here],
            unhealthy=told.unhealthy[here],
        )
        first = start == 0
        gone = rows.gone if first and gone_beside else ()
        beside = (tokens, uids) if first and tokens_beside else (None, ())
        yield NodeRows(**some, gone=gone), kinds, *beside
    if not gone_beside:
        for names in _slices(rows.gone, GONE_PER_PART_MAX):
            yield NodeRows(gone=names), NodeKinds(), None, ()
    if not tokens_beside and tokens is not None:
        for start in range(0, len(tokens), TOKENS_PER_PART_MAX):
            here = slice(start, start + TOKENS_PER_PART_MAX)
            yield NodeRows(), NodeKinds(), tokens[here], uids[here]


def _slices(items: tuple[_Item, ...], size: int) -> list[tuple[_Item, ...]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _chain(tuples: Sequence[tuple[_Item, ...]]) -> tuple[_Item, ...]:
    return tuple(item for one in tuples for item in one)
