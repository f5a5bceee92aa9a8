"""The import contracts: that the `room` contract type fires, and that `.importlinter` covers every module once."""

import configparser
from pathlib import Path

import grimp
import pytest
from grimp import ImportGraph
from importlinter import ContractCheck

from tests.import_rules import OUR_PACKAGES, RoomContract

ROOT = Path(__file__).resolve().parents[2]


def graph(*imports: tuple[str, str]) -> ImportGraph:
    made = ImportGraph()
    for name in ("placement", "placement.model", "placement.engine", "placement.clock"):
        made.add_module(name)
    for importer, imported in imports:
        if imported not in made.modules:
            made.add_module(imported, is_squashed=True)
        made.add_import(importer=importer, imported=imported, line_number=3, line_contents="")
    return made


def check(made: ImportGraph, **options: object) -> ContractCheck:
    room = RoomContract("a room", {}, {"modules": ["placement"], **options})
    return room.check(made, verbose=False)


def broken(made: ImportGraph, **options: object) -> list[str]:
    return list(check(made, **options).metadata["broken"])


def test_a_library_on_the_list_is_allowed() -> None:
    assert broken(graph(("placement.engine", "numpy")), third_party=["numpy"]) == []


def test_a_library_nobody_thought_of_is_refused_with_its_line() -> None:
    assert broken(graph(("placement.engine", "scipy")), third_party=["numpy"]) == ["placement.engine:3 imports scipy"]


def test_a_room_inside_the_room_has_its_own_list() -> None:
    pydantic_in_model = graph(("placement.model", "pydantic"))
    assert broken(pydantic_in_model) == ["placement.model:3 imports pydantic"]
    assert broken(pydantic_in_model, except_modules=["placement.model"]) == []


def test_a_pure_room_reaches_no_clock_through_its_own_modules() -> None:
    reads_clock = graph(("placement.engine", "placement.clock"), ("placement.clock", "time"))
    assert broken(reads_clock) == []
    assert broken(reads_clock, pure="True") == [
        "placement.clock -> time",
        "placement.engine -> placement.clock -> time",
    ]


def test_a_module_that_does_not_exist_is_warned_of() -> None:
    assert check(graph(), modules=["placement.gone"]).warnings == ["there is no module placement.gone"]


def rooms() -> dict[str, tuple[set[str], set[str]]]:
    """Per room of `.importlinter` the modules named and those excepted."""
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter", encoding="utf-8")
    return {
        name.rpartition(":")[2]: (set(section["modules"].split()), set(section.get("except_modules", "").split()))
        for name, section in contracts.items()
        if section.get("type") == "room"
    }


@pytest.fixture(scope="module")
def product() -> ImportGraph:
    return grimp.build_graph(*sorted(OUR_PACKAGES), cache_dir=None)


def below(made: ImportGraph, roots: set[str]) -> set[str]:
    return {module for root in roots if root in made.modules for module in ({root} | made.find_descendants(root))}


def test_every_module_is_in_exactly_one_room(product: ImportGraph) -> None:
    members = {name: below(product, named) - below(product, excepted) for name, (named, excepted) in rooms().items()}
    homes = {
        module: sorted(name for name, in_room in members.items() if module in in_room) for module in product.modules
    }
    assert {module: names for module, names in homes.items() if len(names) != 1} == {}


def test_every_module_that_a_room_names_exists(product: ImportGraph) -> None:
    named = {module for modules, excepted in rooms().values() for module in modules | excepted}
    assert sorted(named - product.modules) == []
