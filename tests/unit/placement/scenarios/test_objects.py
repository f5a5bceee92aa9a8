"""From Node, Pod and PodGroup objects to nodes: on the agent's table, and on the one that its reports give a server."""

from __future__ import annotations

import pytest

from cluster_agents.core.config import NODE_LABELS, AgentConfig
from cluster_agents.core.inventory import Inventory
from cluster_agents.core.pods import PodBook, pod_view
from cluster_agents.core.reports import node_kinds, node_rows
from federation.core.records import Submitted, decode_record, encode_record
from federation.core.stored import extras_of, request_of, shapes_of
from federation.core.views import Taken, Views
from federation.protocol.lease import Timings
from federation.protocol.messages import Report, Stamp, decode_message, encode_message
from placement.assign import assign
from placement.assignment import Assignment
from placement.fleet import NodeTable
from placement.model import GangRequest, Position
from placement.requests import gang_request
from tests.unit.placement.scenarios.language import Placed, Waits, Want
from tests.unit.placement.scenarios.objects import OBJECTS, ObjectScenario

LABELS = frozenset({"zone", "custom-label-1", "nodeRole"})  # that the operators of these clusters name

EACH = pytest.mark.parametrize("one", [pytest.param(one, id=one.says) for one in OBJECTS])


def inventory_of(one: ObjectScenario) -> Inventory:
    found, book = Inventory(AgentConfig(cluster="c-1", boot_nonce="b", node_labels=NODE_LABELS | LABELS)), PodBook()
    for node in one.nodes:
        found.put_node(node)
    for pod in one.pods:
        change = book.put(pod_view(pod))
        assert change is not None
        found.pod_changed(change)
    return found


def answered(table: NodeTable, request: GangRequest, want: Want) -> Want:
    found = assign(table, request)
    if not isinstance(found, Assignment):
        told = isinstance(want, Waits) and want.needs is not None
        return Waits(found[0].reason, found[0].needs, found[0].best) if told else Waits(found[0].reason)
    pods: dict[str, int] = {}
    for part in found.parts:
        pods[part.node] = pods.get(part.node, 0) + part.pods
    return Placed(pods)


@EACH
def test_agent_answers_as_the_source_wants_it(one: ObjectScenario) -> None:
    assert answered(inventory_of(one).table(), gang_request(one.group), one.want) == one.want, one.source


@EACH
def test_server_answers_the_same_from_the_report_and_from_what_the_journal_keeps(one: ObjectScenario) -> None:
    rows = inventory_of(one).take_all()
    facts = {"cluster": "c-1", "lineage": "l1", "stamp": Stamp(1, 1), "applied": 0}
    report = Report(**facts, rows=node_rows(rows), node_kinds=node_kinds(rows))  # type: ignore[arg-type]
    received = decode_message(encode_message(report))
    assert isinstance(received, Report)
    views = Views(Timings())
    assert views.take(received, 0.0) is Taken.ACCEPTED
    view = views.get("c-1")
    assert view is not None
    asked = _through_the_journal(gang_request(one.group))
    assert answered(view.table(), asked, one.want) == one.want, one.source


def _through_the_journal(asked: GangRequest) -> GangRequest:
    """The request as a server reads it from the record of its submission."""
    record = Submitted(
        name="g",
        namespace="default",
        queue="default",
        priority=0,
        request_id="r-1",
        body_digest="",
        roles=shapes_of(asked),
        role_extras=extras_of(asked),
        min_count=asked.min_count,
        level_required=asked.level_required,
        level_preferred=asked.level_preferred,
        disruption_mode="all",
        disconnect_policy="StopAndMove",
        grace_s=30,
        spec=b"",
    )
    read = decode_record(encode_record(record), Position(8_193))
    assert isinstance(read, Submitted)
    return request_of(read)
