"""What agents ask their API servers for is within the role that is published for them. That nothing of it is too much
is said by tests/kubernetes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import yaml

from cluster_agents.core.events import CallKube
from cluster_agents.kubernetes.reflector import sources
from tests.unit.cluster_agents.rig import Rig
from tests.unit.cluster_agents.test_jobs import job

ROLE: Final = Path(__file__).resolve().parents[3] / "examples" / "kubernetes" / "agent.yaml"
OWN: Final = "muster-system"
PATH: Final = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/v1(?:/namespaces/(?P<namespace>[^/]+))?"
    r"/(?P<resource>nodes|pods|services|jobs|configmaps|leases)(?:/(?P<name>[^/]+)(?:/(?P<part>\w+))?)?"
)
VERBS: Final = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}

Right = tuple[str, str, str, str]
"""Group, resource, verb, and the namespace if only there."""


def granted() -> set[Right]:
    found: set[Right] = set()
    for one in yaml.safe_load_all(ROLE.read_text()):
        where = OWN if one["kind"] == "Role" else ""
        for rule in one.get("rules", []):
            assert len(rule["apiGroups"]) == 1
            found |= {(rule["apiGroups"][0], what, verb, where) for what in rule["resources"] for verb in rule["verbs"]}
    return found


def right(method: str, path: str) -> Right:
    found = PATH.fullmatch(path)
    assert found, path
    resource = found["resource"] + (f"/{found['part']}" if found["part"] else "")
    verb = VERBS.get(method, "get" if found["name"] else "list")
    return found["group"] or "", resource, verb, OWN if found["namespace"] == OWN else ""


def of_call(call: CallKube) -> Right:
    if call.path == "/api/v1/namespaces/kube-system":
        return "", "namespaces", "get", ""
    return right(call.method, call.path)


def test_every_request_of_gangs_that_come_resize_and_go_is_within_the_published_role() -> None:
    rig = Rig().ready()
    elastic, made = rig.federation.place(pods=2), job(rig, pods=2)
    rig.ring()
    rig.advance(20.0)
    rig.federation.resize(elastic, 4)
    rig.ring()
    rig.advance(20.0)
    for token in (elastic, made):
        rig.federation.change(token, intent="stop", stop_reason="Cancelled")
    rig.ring()
    rig.advance(60.0)
    asked = {of_call(call) for call in rig.calls if call.path != "/api/v1/namespaces"}  # the role's file makes theirs
    assert asked - granted() == set()
    assert {
        ("", "pods/binding", "create", ""),
        ("batch", "jobs", "patch", ""),
        ("", "configmaps", "patch", OWN),
    } <= asked


def test_what_is_watched_may_be_listed_and_watched() -> None:
    for source in sources(OWN):
        group, resource, _, where = right("GET", source.path)
        assert {(group, resource, verb, where) for verb in ("list", "watch")} <= granted()
