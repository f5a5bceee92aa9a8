"""The import-linter contract type behind `.importlinter`: what a room may import from outside.

An allow-list, so that a library nobody thought of is refused too. Arrows between our own packages are import-linter's
built-in contracts and do not belong here.
"""

import sys
from collections.abc import Iterator
from typing import cast

from grimp import DetailedImport, ImportGraph
from importlinter import Contract, ContractCheck, fields, output

OUR_PACKAGES = frozenset({"placement", "storage", "federation", "cluster_agents", "muster"})

# What gives a function an answer that its arguments do not decide, or lets it wait. `datetime` is absent: cores format
# times they were given; the house test looks for `now()` calls.
IMPURE_STDLIB = frozenset(
    {
        "asyncio",
        "concurrent",
        "contextvars",
        "getpass",
        "http",
        "logging",
        "multiprocessing",
        "os",
        "pathlib",
        "platform",
        "queue",
        "random",
        "sched",
        "secrets",
        "select",
        "selectors",
        "shutil",
        "signal",
        "socket",
        "sqlite3",
        "ssl",
        "subprocess",
        "tempfile",
        "threading",
        "time",
        "urllib",
        "uuid",
    }
)


class RoomContract(Contract):
    """Modules of a room import only the named third-party libraries and, if `pure`, nothing impure even indirectly.

    Options: `modules` (with what is below them), `except_modules` (rooms inside the room, with contracts of their own),
    `third_party` (top-level names), `pure`.
    """

    type_name = "room"

    modules = fields.SetField(subfield=fields.StringField())
    except_modules = fields.SetField(subfield=fields.StringField(), required=False)
    third_party = fields.SetField(subfield=fields.StringField(), required=False)
    pure = fields.BooleanField(required=False, default=False)

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Broken if any module of the room imports what it may not; warns of named modules that do not exist."""
        allowed = _names(self.third_party)
        pure = cast(bool, self.pure)
        broken: list[str] = []
        for importer in sorted(self._members(graph)):
            broken.extend(
                _line(graph.get_import_details(importer=importer, imported=imported))
                for imported in sorted(graph.find_modules_directly_imported_by(importer))
                if _is_third_party(imported) and imported not in allowed
            )
            if pure:
                broken.extend(_impure_chains(graph, importer))
        missing = sorted(_names(self.modules) - graph.modules)
        warnings = [f"there is no module {module}" for module in missing]
        return ContractCheck(kept=not broken, warnings=warnings, metadata={"broken": broken})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Each forbidden import on a line of its own."""
        for line in check.metadata["broken"]:
            output.print_error(f"- {line}")
        output.new_line()

    def _members(self, graph: ImportGraph) -> set[str]:
        return _below(graph, _names(self.modules)) - _below(graph, _names(self.except_modules))


def _names(option: object) -> frozenset[str]:
    if option is None:
        return frozenset()
    assert isinstance(option, set)
    return frozenset(str(name) for name in option)


def _below(graph: ImportGraph, roots: frozenset[str]) -> set[str]:
    members: set[str] = set()
    for root in sorted(roots & graph.modules):
        members |= {root} | graph.find_descendants(root)
    return members


def _is_third_party(module: str) -> bool:
    top = module.partition(".")[0]
    return top not in OUR_PACKAGES and top not in sys.stdlib_module_names


def _impure_chains(graph: ImportGraph, importer: str) -> Iterator[str]:
    for impure in sorted(IMPURE_STDLIB & graph.modules):
        chain = graph.find_shortest_chain(importer=importer, imported=impure)
        if chain:
            yield " -> ".join(chain)


def _line(details: list[DetailedImport]) -> str:
    first = details[0]
    return f"{first['importer']}:{first['line_number']} imports {first['imported']}"
