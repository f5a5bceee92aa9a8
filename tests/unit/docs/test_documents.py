"""What the documents say of the code is so: routes, errors, reasons, records, metrics, commands, links.

Compares texts with definitions; `tests/integration/test_docs.py` runs the commands.
"""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click
import pytest

from federation.cli.main import muster
from federation.core.events import Refused
from federation.core.records import AnyRecord
from federation.core.replica import Replica, ReplicaConfig
from federation.manifests import faults
from federation.protocol.presets import PRESETS
from federation.server import metrics
from federation.server.app import Service, make_app
from federation.server.feed import Feed
from federation.server.loop import ReplicaLoop
from federation.server.problems import STATUS
from federation.server.tokens import Principals
from placement.model import Reason
from storage.backends.memory import MemoryStore
from tests.documents import PAGES, ROOT, blocks, commands, table

API = ROOT / "docs" / "api.md"
OPERATING = ROOT / "docs" / "operating.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
HTTP_REFUSED = "MethodNotAllowed"  # `app` gives it to what the framework itself refuses


def test_every_reason_has_a_row_in_order_of_severity() -> None:
    codes = [row[0] for row in table(ROOT / "docs" / "reasons.md", "reason")]
    assert codes == [reason.code for reason in sorted(Reason, key=lambda reason: reason.severity)]


def test_every_kind_of_record_has_a_row() -> None:
    kinds = [row[0] for row in table(ARCHITECTURE, "kind")]
    assert kinds == [kind.__name__ for kind in get_args(AnyRecord)]


def test_every_metric_has_a_row() -> None:
    named = re.findall(r"muster_[a-z_]+", " ".join(row[0] for row in table(OPERATING, "metric")))
    assert sorted(named) == sorted(set(re.findall(r'"(muster_[a-z_]+)"', Path(metrics.__file__).read_text())))


def test_every_route_has_a_row() -> None:
    feed = Feed()
    loop = ReplicaLoop(Replica(ReplicaConfig(name="s-1", seed=1)), MemoryStore(), feed)
    paths = make_app(Service(loop, feed, Principals({}), metrics.Metrics())).openapi()["paths"]
    served = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert {row[0] for row in table(API, "route")} == served


def test_every_error_has_a_row() -> None:
    codes = [row[0] for row in table(API, "reason")]
    assert len(codes) == len(set(codes))
    assert set(codes) == {why.value for why in Refused} | set(_codes_raised()) | {HTTP_REFUSED}


def test_every_refusal_has_the_status_that_is_written() -> None:
    statuses = {row[0]: row[1] for row in table(API, "reason")}
    assert [why for why in Refused if str(STATUS[why]) not in statuses[why.value]] == []


def _codes_raised() -> Iterator[str]:
    """Literal codes of errors wherever they are raised, and those that `faults` makes of the models' errors."""
    index = {"ProblemError": 1, "ManifestError": 0, "_fault": 0}
    for path in (ROOT / "federation").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in index:
                yield from _literals(node.args[index[node.func.id]])
    for node in ast.walk(ast.parse(inspect.getsource(faults._reason))):
        if isinstance(node, ast.Return) and node.value is not None:
            yield from _literals(node.value)


def _literals(expression: ast.expr) -> list[str]:
    match expression:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.IfExp(body=one, orelse=other):
            return _literals(one) + _literals(other)
        case _:
            return []


@pytest.mark.parametrize("row", table(OPERATING, "preset"), ids=lambda row: str(row[0]))
def test_the_times_of_a_preset_are_those_of_the_rules(row: tuple[str, ...]) -> None:
    timings = PRESETS[row[0]]
    window_s = timings.window_s(timings.ttl_s)
    times_s = (timings.ttl_s, timings.renew_s, window_s, window_s + timings.fence_wait_s(10))
    assert row[1:] == tuple(f"{round(time_s)} s" for time_s in times_s)


def _muster_lines() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for block in blocks(page):
            lines = [command.line for command in commands(block)] if block.language else block.text.splitlines()
            for line in lines:
                found = re.match(r"(?:.*\| )?(muster(?: .*)?)$", re.split(r"\s+#\s", line)[0])
                if found:
                    yield page.name, found[1].strip()


@pytest.mark.parametrize(("page", "line"), sorted(set(_muster_lines())), ids=lambda text: text)
def test_every_command_of_muster_that_is_shown_exists_with_its_options(page: str, line: str) -> None:
    del page
    arguments = shlex.split(line.replace("…", ""))[1:]
    command: click.Command = muster
    context = click.Context(muster, info_name="muster")
    while isinstance(command, click.Group):
        name, found, arguments = command.resolve_command(context, arguments)
        assert found is not None, name
        context = click.Context(found, info_name=name, parent=context)
        command = found
    if "--help" not in arguments:
        command.make_parser(context).parse_args(list(arguments))


def _anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_the_pages_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if link.startswith("https://"):
            continue
        headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE) if target.suffix == ".md" else []
        if not target.exists() or (anchor and anchor not in map(_anchor, headings)):
            lost.append(link)
    assert lost == []


def test_every_page_and_every_decision_is_listed() -> None:
    docs = ROOT / "docs"
    for folder in (docs, docs / "decisions"):
        listed = (folder / "README.md").read_text(encoding="utf-8")
        assert [page.name for page in folder.glob("*.md") if page.name != "README.md" and page.name not in listed] == []
