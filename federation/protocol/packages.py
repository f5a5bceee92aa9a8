"""Whether our plain package names are ours: other distributions own some of them, and Python takes whichever it finds
first. Every entry point asks before it does anything; asking imports nothing and costs a few file look-ups.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

DISTRIBUTION: Final = "muster-fleet"
PACKAGES: Final = ("placement", "storage", "federation", "cluster_agents", "muster")
ROOT: Final = Path(__file__).resolve().parents[2]  # the folder that holds them all
REMEDY: Final = f"install {DISTRIBUTION} by pipx or uv tool, or into a virtual environment of its own"
EXIT_ERROR: Final = 1


@dataclass(frozen=True, slots=True)
class Stranger:
    """A package of ours that Python would take from elsewhere; `where` is empty when it finds none at all."""

    name: str
    where: str

    def __str__(self) -> str:
        return f"package {self.name} comes from {self.where}" if self.where else f"package {self.name} is missing"


def strangers(root: Path = ROOT) -> list[Stranger]:
    """The packages that would not come from `root`."""
    found = [(name, _where(name)) for name in PACKAGES]
    return [Stranger(name, where) for name, where in found if where != str(root / name)]


def _where(name: str) -> str:
    spec = importlib.util.find_spec(name)
    places = list(spec.submodule_search_locations or []) if spec is not None else []
    if places:
        return str(Path(places[0]).resolve())
    return str(spec.origin) if spec is not None and spec.origin else ""


def refuse_strangers(program: str, argv: Sequence[str] = ()) -> None:
    """Ends the process with what to do, unless all packages are ours. `argv` "doctor" goes on: it shows them."""
    found = strangers() if "doctor" not in argv[:1] else []
    if found:
        _end(program, found)


def _end(program: str, found: Sequence[Stranger]) -> NoReturn:
    what = "; ".join(str(one) for one in found)
    sys.stderr.write(f"{program}: {what}: another distribution owns that name\n  {REMEDY}\n")
    sys.exit(EXIT_ERROR)
