"""The house rules that linters do not know: sizes, docstrings, versions, what must never be committed.

Reads the files of the checkout and parses them; runs nothing of the product.
"""

import ast
import configparser
import importlib.metadata
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import muster

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("placement", "storage", "federation", "cluster_agents", "muster")

FILE_LINES_MAX = 600  # longer files hide more than one thing
FUNCTION_LINES_MAX = 70  # what one screen shows

# Written in pieces, so that this file does not contain what it looks for.
INDEX_ADDRESSES = tuple(
    host + "." + domain
    for host, domain in (
        ("pypi", "org"),
        ("files.pythonhosted", "org"),
        ("registry.npmjs", "org"),
        ("proxy.golang", "org"),
        ("repo.maven.apache", "org"),
        ("deb.debian", "org"),
    )
) + tuple("--" + option for option in ("index" + "-url", "extra-index" + "-url", "find" + "-links"))
MACHINE_PATH = re.compile(r"(?<![\w./~*-])/(?:work|root)/")

# Calls that make a core's answer depend on more than its arguments, and that an import contract cannot see.
IMPURE_CALLS = frozenset({"open", "print", "input", "id", "exec", "eval", "breakpoint"})
CLOCK_CALLS = frozenset({"now", "utcnow", "today"})


@cache
def committed_files() -> list[Path]:
    """What is tracked or would be by `git add`."""
    names = subprocess.run(
        ("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"),
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return sorted(path for name in set(names.split("\0")) if name and (path := ROOT / name).is_file())


def python_files() -> list[Path]:
    return [path for path in committed_files() if path.suffix == ".py"]


def product_files() -> list[Path]:
    return [path for path in python_files() if path.relative_to(ROOT).parts[0] in PACKAGES]


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_no_python_file_is_longer_than_600_lines() -> None:
    lengths = {shown(path): len(path.read_text(encoding="utf-8").splitlines()) for path in python_files()}
    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES_MAX} == {}


def test_no_function_is_longer_than_70_lines() -> None:
    lengths = {
        f"{shown(path)}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path in python_files()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None
    }
    assert {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES_MAX} == {}


def test_every_product_module_says_what_it_is_for() -> None:
    assert [shown(path) for path in product_files() if not ast.get_docstring(tree(path))] == []


def test_every_product_folder_is_a_package() -> None:
    folders = {path.parent for path in product_files()}
    assert sorted(shown(folder) for folder in folders if not (folder / "__init__.py").is_file()) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_package_ships_its_types(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


def test_no_committed_file_names_a_package_index_or_a_path_of_one_machine() -> None:
    assert list(_leaks()) == []


def _leaks() -> Iterator[str]:
    for path in committed_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # golden bytes and pictures
        for number, line in enumerate(text.splitlines(), start=1):
            if any(address in line for address in INDEX_ADDRESSES) or MACHINE_PATH.search(line):
                yield f"{shown(path)}:{number}: {line.strip()[:120]}"


def test_the_version_is_the_same_everywhere() -> None:
    declared = _pyproject()["project"]["version"]
    assert (muster.__version__, importlib.metadata.version("muster-fleet")) == (declared, declared)


def test_the_changelog_starts_with_what_is_unreleased_or_with_this_version() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert headings[0].startswith(("Unreleased", _pyproject()["project"]["version"]))


@pytest.mark.parametrize("lock", ["uv", "run", "dev"])
def test_every_locked_package_has_hashes(lock: str) -> None:
    entries = re.split(r"^(?=[A-Za-z0-9])", _lock(lock), flags=re.MULTILINE)
    pinned = [entry for entry in entries if "==" in entry.partition("\n")[0]]
    assert pinned
    assert [entry.partition(" ")[0] for entry in pinned if "--hash=sha256:" not in entry] == []


def test_what_is_tested_is_what_runs() -> None:
    assert sorted(set(_pins("run")) - set(_pins("dev"))) == []


def test_every_runtime_dependency_is_locked() -> None:
    wanted = {re.split(r"[\[<>=]", dependency)[0] for dependency in _pyproject()["project"]["dependencies"]}
    assert sorted(wanted - {pin.partition("==")[0] for pin in _pins("run")}) == []


def test_pure_rooms_read_no_clock_and_touch_nothing_outside() -> None:
    assert [finding for path in pure_files() for finding in _impurities(path)] == []


def test_a_clock_read_in_a_pure_room_is_found(tmp_path: Path) -> None:
    source = tmp_path / "core.py"
    source.write_text(
        "from datetime import UTC, datetime\n\n\ndef age() -> float:\n    return datetime.now(UTC).timestamp()\n"
    )
    assert [finding.rpartition(": ")[2] for finding in _impurities(source)] == ["now()"]


def pure_files() -> list[Path]:
    """The files of the rooms that `.importlinter` calls pure, so that there is one list."""
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter", encoding="utf-8")
    members: set[Path] = set()
    for section in contracts.values():
        if section.get("type") == "room" and section.getboolean("pure", fallback=False):
            members |= _modules(section["modules"]) - _modules(section.get("except_modules", ""))
    assert members
    return sorted(members)


def _modules(names: str) -> set[Path]:
    found: set[Path] = set()
    for name in names.split():
        path = ROOT.joinpath(*name.split("."))
        found |= {file for file in product_files() if file.is_relative_to(path) or file == path.with_suffix(".py")}
    return found


def _impurities(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in IMPURE_CALLS:
                yield f"{path.name}:{node.lineno}: {name}()"
            case ast.Call(func=ast.Attribute(attr=name)) if name in CLOCK_CALLS:
                yield f"{path.name}:{node.lineno}: {name}()"
            case ast.AsyncFunctionDef() | ast.Await():
                yield f"{path.name}:{node.lineno}: async"
            case ast.Global():
                yield f"{path.name}:{node.lineno}: global"
            case _:
                pass


def _pyproject() -> dict[str, dict[str, str | list[str]]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def _lock(name: str) -> str:
    return (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")


def _pins(name: str) -> list[str]:
    return re.findall(r"^([a-z0-9._-]+==[^ ]+)", _lock(name), flags=re.MULTILINE)
