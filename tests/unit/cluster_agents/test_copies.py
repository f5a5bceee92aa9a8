"""Objects that somebody made with our labels, such as a copy of a Job taken with `kubectl get -o yaml`."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.unit.cluster_agents.rig import Rig
from tests.unit.cluster_agents.test_jobs import job

JOBS = "/apis/batch/v1/namespaces/default/jobs"


def copied(rig: Rig, name: str, **spec: Any) -> None:
    """Somebody makes another Job from ours, which ends at once."""
    (original,) = (obj for _, obj in rig.api.store.each("jobs"))
    labels = original["metadata"]["labels"]
    wanted = copy.deepcopy(dict(original["spec"])) | spec
    wanted.pop("selector", None)
    template = wanted["template"]["metadata"]
    template["labels"] = {key: value for key, value in template["labels"].items() if key.startswith("muster.io/")}
    body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": labels}, "spec": wanted}
    assert rig.request("POST", JOBS, body) == 201


def jobs(rig: Rig) -> list[str]:
    return rig.objects("jobs")


@pytest.mark.parametrize("restarted", [False, True], ids=["seen", "found"])
@pytest.mark.parametrize("name", ["aaa", "zzz"])
def test_how_a_copy_of_its_job_ends_says_nothing_about_a_gang(name: str, restarted: bool) -> None:
    """It was told as failed, and what ran was stopped."""
    rig = Rig().ready()
    token = job(rig, pods=2)
    rig.run(token)
    copied(rig, name, activeDeadlineSeconds=2)
    if restarted:
        rig.restart()
    rig.advance(30.0)
    assert rig.federation.heard(token) == ["Bound", "Running"]
    assert len(rig.live()) == 2


@pytest.mark.parametrize("name", ["aaa", "zzz"])
def test_a_gang_that_ends_takes_copies_of_its_job_along(name: str) -> None:
    rig = Rig().ready()
    token = job(rig, pods=2)
    rig.run(token)
    copied(rig, name)
    rig.advance(5.0)
    rig.federation.change(token, intent="stop", stop_reason="Cancelled")
    rig.ring()
    rig.advance(90.0)
    assert rig.federation.given_up(token).reasons == ("Cancelled",)
    assert jobs(rig) == []
    assert rig.pods() == []
    assert rig.intents() == []


def forged(token: str) -> dict[str, Any]:
    """A pod that somebody bound by himself, as if it were of this placement; it asks for nothing."""
    labels = {"muster.io/token": token, "muster.io/group-uid": "l1.5"}
    metadata = {"name": f"forged-{token}", "namespace": "default", "labels": labels}
    return {"metadata": metadata, "spec": {"nodeName": "n-1", "containers": [{"name": "main", "image": "theirs"}]}}


def test_a_pod_with_our_labels_that_nobody_here_explains_is_stopped() -> None:
    rig = Rig().ready()
    assert rig.request("POST", "/api/v1/namespaces/default/pods", forged("l1.7")) == 201
    rig.advance(40.0)
    assert rig.live() == []
    assert rig.pods() == []


def test_a_pod_with_a_token_that_the_fleet_has_not_come_to_yet_is_left_and_told() -> None:
    """It may be of a placement that this agent's answers are too old to know."""
    rig = Rig().ready()
    assert rig.request("POST", "/api/v1/namespaces/default/pods", forged("l1.999999")) == 201
    rig.advance(40.0)
    assert rig.live() == ["forged-l1.999999"]
    rig.federation.fence()
    rig.advance(20.0)
    assert rig.reports[-1].tokens == ("l1.999999",)
