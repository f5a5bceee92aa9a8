"""The Markdown documents of the checkout, as tests read them: fenced blocks, commands, tables, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
PAGES: Final = (ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md")))
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block; `language` is empty where none is named."""

    page: Path
    language: str
    text: str


@dataclass(frozen=True, slots=True)
class Command:
    """One shell command of a document, and the output printed below it (`console` blocks only)."""

    page: Path
    line: str
    output: tuple[str, ...] = ()


def blocks(page: Path) -> Iterator[Block]:
    for language, text in _FENCE.findall(page.read_text(encoding="utf-8")):
        yield Block(page, language, text)


def commands(block: Block) -> list[Command]:
    """The commands of a `sh` block, or those after `$` in a `console` block with what they print."""
    if block.language == "sh":
        return [Command(block.page, line) for line in block.text.splitlines() if line and not line.startswith("#")]
    if block.language != "console":
        return []
    found: list[tuple[str, list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return [Command(block.page, line, tuple(output)) for line, output in found]


def table(page: Path, column: str) -> list[tuple[str, ...]]:
    """The rows of all tables of the page whose first column is headed `column`, cells stripped of back quotes."""
    rows: list[tuple[str, ...]] = []
    inside = False
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = tuple(cell.strip().strip("`") for cell in line.strip().strip("|").split(" | "))
        if not line.startswith("|"):
            inside = False
        elif cells[0] == column:
            inside = True
        elif inside and not set(line) <= set("|-"):
            rows.append(cells)
    return rows
