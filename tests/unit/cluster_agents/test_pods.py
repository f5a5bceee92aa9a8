"""When a pod's containers have surely ended, and which of two versions of a pod counts."""

from typing import Any

import pytest

from cluster_agents.core.books import Books
from cluster_agents.core.config import AgentConfig
from cluster_agents.core.pods import PodBook, PodKey, pod_amounts, pod_view


def pod(*, version: str = "1", node: str = "n-1", deleting: bool = False, **status: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "name": "p",
        "namespace": "default",
        "uid": "u-1",
        "resourceVersion": version,
        "labels": {"muster.io/group-uid": "l1.1", "muster.io/token": "l1.9"},
    }
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    spec = {"nodeName": node, "containers": [{"name": "a"}, {"name": "b"}]}
    return {"metadata": metadata, "spec": spec, "status": status}


RUNS = {"state": {"running": {}}}
OVER = {"state": {"terminated": {"exitCode": 0}}}
WAITS = {"state": {"waiting": {}}}


@pytest.mark.parametrize(
    ("obj", "quiet"),
    [
        (pod(phase="Pending", node=""), False),
        (pod(phase="Pending", node="", deleting=True), True),
        (pod(phase="Pending"), False),
        (pod(phase="Pending", deleting=True), False),
        (pod(phase="Running", containerStatuses=[RUNS, RUNS]), False),
        (pod(phase="Running", containerStatuses=[RUNS, OVER], deleting=True), False),
        (pod(phase="Running", containerStatuses=[OVER, OVER]), False),
        (pod(phase="Running", containerStatuses=[OVER, OVER], deleting=True), True),
        (pod(phase="Running", containerStatuses=[OVER], deleting=True), False),
        (pod(phase="Running", containerStatuses=[OVER, WAITS], deleting=True), False),
        (pod(phase="Succeeded", containerStatuses=[OVER, OVER]), True),
        (pod(phase="Failed", reason="OutOfcpu"), True),
        (pod(phase="Failed", reason="Evicted", containerStatuses=[RUNS, OVER]), False),
    ],
    ids=[
        "unbound",
        "deleted unbound",
        "bound, not started",
        "bound, deleted, unconfirmed",
        "running",
        "one still runs while deleted",
        "all ended but may restart",
        "all ended and deleted",
        "one unreported while deleted",
        "one may start while deleted",
        "succeeded",
        "rejected by its kubelet",
        "evicted while a container still runs",
    ],
)
def test_a_pod_is_quiet_only_when_no_container_runs_or_can_start(obj: dict[str, Any], quiet: bool) -> None:
    assert pod_view(obj).quiet is quiet


def test_an_older_version_never_replaces_a_newer_one() -> None:
    book = PodBook()
    book.put(pod_view(pod(version="7", phase="Running")))
    assert book.put(pod_view(pod(version="6", phase="Pending"))) is None
    assert book.put(pod_view(pod(version="7", phase="Pending"))) is None
    kept = book.get(PodKey("default", "p"))
    assert kept is not None
    assert kept.phase == "Running"


def test_a_pod_that_is_gone_is_not_brought_back_by_a_late_answer() -> None:
    book = PodBook()
    book.put(pod_view(pod(version="7")))
    assert book.remove(PodKey("default", "p"), "u-1", 8) is not None
    assert book.put(pod_view(pod(version="9"))) is None
    assert book.get(PodKey("default", "p")) is None
    assert book.tokens() == []


def test_a_removal_older_than_what_is_known_is_ignored() -> None:
    book = PodBook()
    book.put(pod_view(pod(version="7")))
    assert book.remove(PodKey("default", "p"), "u-1", 6) is None


def test_a_binding_that_succeeded_counts_before_the_watch_shows_it() -> None:
    book = PodBook()
    book.put(pod_view(pod(version="7", node="", phase="Pending")))
    assert book.mark_bound(PodKey("default", "p"), "other", "n-2") is None
    assert book.mark_bound(PodKey("default", "p"), "u-1", "n-2") is not None
    assert {view.node for view in book.of("l1.9").values()} == {"n-2"}


@pytest.mark.parametrize("token", ["", "nonsense", "l1.x"])
def test_a_pod_with_a_broken_token_is_nobody_of_ours(token: str) -> None:
    obj = pod()
    obj["metadata"]["labels"]["muster.io/token"] = token
    assert pod_view(obj).token == ""


@pytest.mark.parametrize(
    ("index", "read"),
    [("12", 12), ("9" * 9, 999_999_999), ("9" * 10, -1), ("\u00b2", -1), ("9" * 5_000, -1), ("", -1)],
    ids=["a number", "the longest", "one digit more", "a superscript", "more than Python reads", "none"],
)
def test_what_anybody_wrote_on_a_pod_as_its_index_is_a_number_or_none(index: str, read: int) -> None:
    """An agent that fell over it would fall over it again after each start, and its cluster be fenced."""
    obj = pod()
    obj["metadata"]["annotations"] = {"batch.kubernetes.io/job-completion-index": index}
    assert pod_view(obj).completion_index == read


@pytest.mark.parametrize(("version", "read"), [("7", 7), ("\u00b2", 0), ("9" * 5_000, 0), ("v7", 0)])
def test_a_version_that_is_no_number_counts_as_the_oldest(version: str, read: int) -> None:
    assert pod_view(pod(version=version)).version == read


@pytest.mark.parametrize(("asked_at_s", "there"), [(9.0, True), (10.0, True), (10.1, False)])
def test_an_absence_counts_only_if_the_pod_was_not_shown_since_it_was_asked_for(
    asked_at_s: float, *, there: bool
) -> None:
    """A create that lands late is watched before the answer to an older read arrives (world seed 41)."""
    books = Books(AgentConfig("c-1", "boot"))
    books.now_s = 10.0
    books.put_pod(pod(phase="Pending", node=""))
    books.now_s = 11.0
    books.pod_missing(PodKey("default", "p"), asked_at_s=asked_at_s)
    assert (books.pods.get(PodKey("default", "p")) is not None) is there


FAILS = {"state": {"terminated": {"exitCode": 1}}}


@pytest.mark.parametrize(
    ("status", "started"),
    [
        ({"reason": "OutOfcpu"}, False),
        ({"initContainerStatuses": [WAITS], "containerStatuses": [WAITS, WAITS]}, False),
        ({"initContainerStatuses": [FAILS], "containerStatuses": [WAITS, WAITS]}, True),
    ],
    ids=["turned away", "nothing began", "its init container failed"],
)
def test_a_pod_whose_init_container_failed_was_not_turned_away_by_its_kubelet(
    status: dict[str, Any], *, started: bool
) -> None:
    assert pod_view(pod(phase="Failed", **status)).started is started


def test_a_pod_of_which_somebody_changed_our_labels_stays_its_gang_s() -> None:
    book = PodBook()
    book.put(pod_view(pod(phase="Running", containerStatuses=[RUNS, RUNS])))
    bare = pod(version="2", phase="Running", containerStatuses=[RUNS, RUNS])
    bare["metadata"]["labels"] = {"muster.io/token": "l1.77", "muster.io/group-uid": "l1.2"}
    change = book.put(pod_view(bare))
    assert change is not None
    assert change.token == "l1.9"
    assert [view.version for view in book.of("l1.9").values()] == [2]


def test_what_a_pod_asks_for_as_a_whole_counts_instead_of_what_its_containers_do() -> None:
    containers = [{"name": "a", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}, {"name": "b"}]
    whole = {"requests": {"cpu": "6"}, "limits": {"memory": "8Gi"}}
    asked = pod_amounts({"containers": containers, "resources": whole})
    assert (asked.cpu_milli, asked.memory_mib) == (6_000, 1_024)
    assert pod_amounts({"containers": [{"name": "a"}], "resources": whole}).memory_mib == 8_192
    assert pod_amounts({"containers": [{"name": "a"}], "resources": whole, "overhead": {"cpu": 1}}).cpu_milli == 7_000
