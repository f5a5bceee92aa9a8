"""A spread group on the command line: its children under it, and which commands want one of them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.cli.conftest import Muster
from tests.unit.cli.stub import Stub, group


def child(number: int, cluster: str, bound: int, **more: Any) -> dict[str, Any]:
    phase = "Running" if cluster else "Pending"
    known = {"name": f"web-{number}", "uid": f"l.{number}", "phase": phase, "cluster": cluster, "replicas": 3}
    return {**known, "pods_bound": bound, "reasons": [], **more}


@pytest.fixture(autouse=True)
def web(stub: Stub) -> None:
    children = [child(1, "eu-1", 3), child(2, "", 0, reasons=["Drained"])]
    view = group("web", 1, phase="Pending", cluster="eu-1", pods_bound=3, children=children)
    view["metadata"]["uid"] = "l.1~2"
    stub.answers["GET", "/v1/podgroups/web"] = (200, view)
    stub.answers["GET", "/v1/podgroups/l.1~2/history"] = (200, {"items": []})


def test_its_page_shows_every_child(muster: Muster) -> None:
    shown = muster("describe", "web")
    assert (shown.code, shown.err) == (0, "")
    lines = [line.split() for line in shown.out.splitlines()]
    assert ["CHILD", "PHASE", "CLUSTER", "BOUND", "REASON"] in lines
    assert ["web-1", "Running", "eu-1", "3/3", "<none>"] in lines
    assert ["web-2", "Pending", "<none>", "0/3", "Drained"] in lines


def test_logs_are_those_of_one_child(muster: Muster) -> None:
    shown = muster("logs", "web")
    assert (shown.code, shown.out) == (1, "")
    assert "podgroup/web is spread over clusters" in shown.err
    assert "name one of its children: web-1, web-2" in shown.err
