"""How results become text: tables like kubectl's, JSON, YAML, names. Pure; what the columns are is in `tables`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

NONE: Final = "<none>"
GAP: Final = "   "


@unique
class Format(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """One column; `wide` ones are shown by `-o wide` only."""

    header: str
    value: Callable[[T, int], str]  # of a row, at a wall time in ms
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Noun(Generic[T]):
    """A kind of thing that can be listed: its columns, and the name that `-o name` prints."""

    kind: str
    columns: tuple[Column[T], ...]
    name: Callable[[T], str]


def render(noun: Noun[T], rows: Sequence[T], form: Format, *, now_ms: int, headers: bool = True) -> str:
    """All rows as one text that ends in a newline, or is empty."""
    match form:
        case Format.JSON:
            return as_json(listed(noun, rows))
        case Format.YAML:
            return as_yaml(listed(noun, rows))
        case Format.NAME:
            return "".join(f"{noun.name(row)}\n" for row in rows)
        case Format.TABLE | Format.WIDE:
            return aligned(cells(noun, rows, form, now_ms=now_ms, headers=headers))


def render_one(noun: Noun[T], row: T, form: Format, *, now_ms: int, headers: bool = True) -> str:
    """Like `render`; JSON and YAML show the thing itself instead of a list of one."""
    if form is Format.JSON:
        return as_json(plain(row))
    if form is Format.YAML:
        return as_yaml(plain(row))
    return render(noun, [row], form, now_ms=now_ms, headers=headers)


def cells(noun: Noun[T], rows: Sequence[T], form: Format, *, now_ms: int, headers: bool = True) -> list[list[str]]:
    """The table before it is aligned."""
    columns = [column for column in noun.columns if form is Format.WIDE or not column.wide]
    head = [[column.header for column in columns]] if headers else []
    return head + [[column.value(row, now_ms) or NONE for column in columns] for row in rows]


def listed(noun: Noun[T], rows: Sequence[T]) -> dict[str, Any]:
    return {"apiVersion": "muster.io/v1", "kind": f"{noun.kind}List", "items": [plain(row) for row in rows]}


def plain(value: object) -> Any:
    """The result as JSON's own types, by the API's field names."""
    import msgspec

    return msgspec.to_builtins(value)


def as_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def as_yaml(value: Any) -> str:
    import yaml

    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120)


def report(values: object, form: Format, *, name: str, text: Callable[[], str]) -> str:
    """What a command found out, where that is no list of resources; `name` (lines without their last break) and `text`
    are for people."""
    match form:
        case Format.JSON:
            return as_json(plain(values))
        case Format.YAML:
            return as_yaml(plain(values))
        case Format.NAME:
            return f"{name}\n"
        case Format.TABLE | Format.WIDE:
            return text()


def aligned(lines: Sequence[Sequence[str]], *, least: Sequence[int] = ()) -> str:
    """Columns as wide as their widest cell, and at least as wide as `least`; the last one is never padded. Line breaks
    in cells become blanks."""
    if not lines:
        return ""
    widths = widths_of(lines, least=least)
    padded = (GAP.join(_flat(cell).ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "".join(f"{line.rstrip()}\n" for line in padded)


def widths_of(lines: Sequence[Sequence[str]], *, least: Sequence[int] = ()) -> list[int]:
    """How wide each column must be; also kept by who adds rows later."""
    floors = [*least, *([0] * len(lines[0]))]
    return [max(floors[index], *(len(_flat(line[index])) for line in lines)) for index in range(len(lines[0]))]


def _flat(cell: str) -> str:
    return " ".join(cell.split())


def age(since_ms: int, now_ms: int) -> str:
    """Like kubectl: `42s`, `3m20s`, `45m`, `5h2m`, `30h`, `3d4h`, `9d`."""
    seconds = max(0, now_ms - since_ms) // 1000
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86_400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    return _two(days, "d", hours % 24, "h") if days < 8 else f"{days}d"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def duration(seconds: float | None) -> str:
    """A measured age in seconds, or `<none>` where nothing was heard yet."""
    return NONE if seconds is None else age(0, int(seconds * 1000))
