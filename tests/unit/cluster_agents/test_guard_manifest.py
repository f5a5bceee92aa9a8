"""What is published for the guards of real nodes fits the guard and the agent. That an API server takes it, and that
the guard needs no more, is said by tests/kubernetes."""

from __future__ import annotations

from typing import Any, Final

import pytest
import yaml

from cluster_agents.main import _parser as agent_parser
from cluster_agents.node_guard import main as guard
from tests.unit.cluster_agents.test_role import ROLE

PUBLISHED: Final = ROLE.with_name("guard.yaml")


@pytest.fixture(scope="module")
def published() -> dict[str, dict[str, Any]]:
    return {one["kind"]: one for one in yaml.safe_load_all(PUBLISHED.read_text())}


def test_the_guard_understands_how_it_is_started(published: dict[str, dict[str, Any]]) -> None:
    pod = published["DaemonSet"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    options = guard._parser().parse_args(container["args"])
    service = published["Service"]
    (port,) = service["spec"]["ports"]
    where = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc:{port['port']}"
    assert options.agent == f"http://{where}"
    assert container["readinessProbe"]["httpGet"]["port"] == options.listen[1]


def test_the_guard_has_what_it_needs_of_its_node_and_no_token(published: dict[str, dict[str, Any]]) -> None:
    pod = published["DaemonSet"]["spec"]["template"]["spec"]
    mounted = {one["mountPath"] for one in pod["containers"][0]["volumeMounts"]}
    assert {str(guard.SOCKET.parent), str(guard.STATE), "/var/lib/kubelet/pods"} == mounted
    assert {one["hostPath"]["path"] for one in pod["volumes"]} == mounted
    assert pod["hostPID"] is True
    assert pod["automountServiceAccountToken"] is False
    context = pod["containers"][0]["securityContext"]
    assert context["capabilities"] == {"drop": ["ALL"], "add": ["KILL"]}
    assert (context["appArmorProfile"], context["seLinuxOptions"]) == ({"type": "Unconfined"}, {"type": "spc_t"})


def test_the_agent_listens_where_guards_ask(published: dict[str, dict[str, Any]]) -> None:
    head = PUBLISHED.read_text().splitlines()[1].lstrip("# ")
    options = agent_parser().parse_args(["--cluster", "eu-1", *head.split()])
    assert options.fence_strength == "guard"
    assert options.guard_listen[1] == published["Service"]["spec"]["ports"][0]["port"]


def test_the_guard_sees_all_gpus_and_may_do_no_more_than_look(published: dict[str, dict[str, Any]]) -> None:
    (container,) = published["DaemonSet"]["spec"]["template"]["spec"]["containers"]
    given = {one["name"]: one.get("value") for one in container["env"]}
    assert given["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert given["NVIDIA_DRIVER_CAPABILITIES"] == "utility"
    assert guard._parser().parse_args(container["args"]).gpus == "auto"
    assert "privileged" not in container["securityContext"]
    assert not any("nvidia.com/gpu" in key for key in container["resources"]["limits"])  # it takes none of them
