"""What the gate tells the runtime, whom it signals when the lease has run out, and what a later start of it knows."""

from __future__ import annotations

import signal
from pathlib import Path
from subprocess import Popen

import pytest

from cluster_agents.core.config import GUARD_STOPPED, LABEL_TOKEN
from cluster_agents.core.guard import Guard
from cluster_agents.node_guard import nri
from cluster_agents.node_guard.containers import FORGOTTEN_AFTER_S, GRACE_S_DEFAULT
from cluster_agents.node_guard.disk import NAME, Disk
from cluster_agents.node_guard.gate import GRACE, Gate
from cluster_agents.node_guard.runtime import Refused
from placement.model import GRACE_S_MAX
from tests.unit.cluster_agents.node_guard.children import TRAPS, Children, Proc, container_id, end_of, killed_by_us
from tests.unit.cluster_agents.node_guard.leases import DEADLINE_S, RENEWAL_S, START_S, Clock, lease, leased, starting

A, B = container_id("a"), container_id("b")


def pod(name: str = "p", token: str = "L.1") -> nri.PodSandbox:
    labels = {LABEL_TOKEN: token} if token else {}
    return nri.PodSandbox(id=f"s-{name}", name=name, uid=f"u-{name}", namespace="team", labels=labels)


def container(one: str = A, *, of: str = "p", note: str = "", grace: str = "20", state: int = 3) -> nri.Container:
    mounts = [
        nri.Mount(destination="/data", source="/data"),
        nri.Mount(destination="/dev/termination-log", source=note),
    ]
    found = {"id": one, "pod_sandbox_id": f"s-{of}", "name": "main", "state": state}
    return nri.Container(**found, annotations={GRACE: grace}, mounts=mounts)


class Node:
    """A guard, its clock, its folder and the processes that it can see."""

    def __init__(self, folder: Path, proc: Proc) -> None:
        self.clock = Clock()
        self.folder = folder
        self.proc = proc
        self.gate = self.start(leased())

    def start(self, guard: Guard) -> Gate:
        """The guard is killed and started again."""
        self.guard = guard
        self.gate = Gate(guard, Disk(self.folder / "state"), self.clock, self.proc.folder)
        return self.gate

    def at(self, now_s: float) -> Gate:
        self.clock.now_s = now_s
        return self.gate

    def known(self) -> list[str]:
        return [one.id for one in self.gate.containers.known]

    def note(self, name: str = "p", text: str = "") -> Path:
        """The kubelet's file for a container's message."""
        path = self.folder / "pods" / f"u-{name}" / "containers" / "main" / "abc"
        path.parent.mkdir(parents=True)
        path.write_text(text)
        return path


@pytest.fixture
def node(tmp_path: Path, proc: Proc) -> Node:
    return Node(tmp_path, proc)


def runs(node: Node, child: Popen[bytes], one: str = A, **fields: int) -> Popen[bytes]:
    node.proc.put(child, one, **fields)
    return child


# --- starts -----------------------------------------------------------------------------------------------------------


def test_a_container_of_ours_starts_until_the_deadline_and_is_refused_with_words_from_then_on(node: Node) -> None:
    node.at(DEADLINE_S - 0.1).starting(pod(), container(A))
    with pytest.raises(Refused, match=r"no leave to start team/p \(token L\.1\)"):
        node.at(DEADLINE_S).starting(pod(), container(B))
    assert node.known() == [A]


def test_before_any_answer_a_container_of_ours_is_refused(node: Node) -> None:
    with pytest.raises(Refused):
        node.start(starting()).starting(pod(), container())


def test_a_container_without_our_label_is_nobodys_business(node: Node) -> None:
    node.start(starting()).starting(pod(token=""), container())
    assert node.known() == []


def test_a_start_that_was_given_leave_is_known_to_the_next_guard_before_the_runtime_hears_of_it(node: Node) -> None:
    node.gate.starting(pod(), container())
    node.start(starting())
    assert node.known() == [A]


def test_a_container_that_was_removed_is_forgotten_here_and_on_disk(node: Node) -> None:
    node.gate.starting(pod(), container())
    node.gate.removed(A)
    node.gate.removed(B)
    node.start(starting())
    assert node.known() == []


@pytest.mark.parametrize(
    ("written", "grace_s"),
    [("0", 0.0), ("45", 45.0), ("600", 600.0), ("601", GRACE_S_MAX), ("9" * 5_000, GRACE_S_MAX)]
    + [(odd, GRACE_S_DEFAULT) for odd in ("", "-1", "1.5", "nan", "1e9", "abc", "²")],
)
def test_a_grace_is_the_kubelets_within_bounds_or_else_the_usual_one(node: Node, written: str, grace_s: float) -> None:
    node.gate.starting(pod(), container(grace=written))
    assert node.gate.containers.known[0].grace_s == grace_s


# --- listings ---------------------------------------------------------------------------------------------------------


def test_a_listing_says_which_containers_of_ours_there_are(node: Node) -> None:
    pods = [pod(), pod("other", token="")]
    stopped, orphan = container(container_id("c"), state=nri.STOPPED), container(container_id("d"), of="nobody")
    node.gate.listed(pods, [container(A), container(B, of="other"), stopped, orphan])
    assert node.known() == [A]


def test_who_is_listed_past_the_deadline_is_asked_to_end_at_once(node: Node, children: Children) -> None:
    child = runs(node, children.start())
    node.at(DEADLINE_S).listed([pod()], [container()])
    assert end_of(child) == -signal.SIGTERM


def test_one_that_the_runtime_has_lost_sight_of_is_ended_all_the_same_as_long_as_its_processes_live(
    node: Node, children: Children
) -> None:
    """A runtime leaves out of its list what it cannot tell the state of."""
    child = runs(node, children.start())
    node.gate.starting(pod(), container(A))
    node.gate.starting(pod(), container(B))
    node.gate.listed([pod()], [])
    assert node.known() == [A]
    node.at(DEADLINE_S).stop_due()
    assert end_of(child) == -signal.SIGTERM


# --- ends -------------------------------------------------------------------------------------------------------------


def test_before_the_deadline_nobody_is_signalled(node: Node, children: Children) -> None:
    child = runs(node, children.start())
    node.gate.starting(pod(), container())
    node.at(DEADLINE_S - 0.1).stop_due()
    assert killed_by_us(child)


def test_who_leads_is_asked_to_end_and_whom_it_started_is_ended_when_the_grace_is_over(
    node: Node, children: Children
) -> None:
    root = runs(node, children.start())
    child = runs(node, children.start(), parent=root.pid)
    node.gate.starting(pod(), container())
    node.at(DEADLINE_S).stop_due()
    assert end_of(root) == -signal.SIGTERM
    node.proc.drop(root)
    node.at(DEADLINE_S + 19.9).stop_due()
    assert child.poll() is None
    node.at(DEADLINE_S + 20).stop_due()
    assert end_of(child) == -signal.SIGKILL  # and was not asked before


def test_who_does_not_end_when_asked_is_ended_when_its_grace_is_over(node: Node, children: Children) -> None:
    child = runs(node, children.start(*TRAPS))
    node.gate.starting(pod(), container())
    node.at(DEADLINE_S).stop_due()
    node.at(DEADLINE_S + 20).stop_due()
    assert end_of(child) == -signal.SIGKILL


def test_what_is_held_and_what_is_not_ours_runs_on(node: Node, children: Children) -> None:
    held, stranger = runs(node, children.start()), runs(node, children.start(), B)
    node.start(leased("L.1")).listed([pod(), pod("other", token="")], [container(A), container(B, of="other")])
    node.at(DEADLINE_S + 1_000).stop_due()
    assert killed_by_us(held)
    assert killed_by_us(stranger)


def test_one_whose_first_process_comes_late_is_asked_to_end_then(node: Node, children: Children) -> None:
    node.at(DEADLINE_S - 0.1).starting(pod(), container(grace="600"))
    node.at(DEADLINE_S).stop_due()
    child = runs(node, children.start())
    node.at(DEADLINE_S + FORGOTTEN_AFTER_S - 0.1).stop_due()
    assert end_of(child) == -signal.SIGTERM


def test_what_was_ended_leaves_nothing_behind(node: Node) -> None:
    for letter in "abcdef":
        node.gate.starting(pod(), container(container_id(letter)))
    node.at(DEADLINE_S).stop_due()
    assert node.gate.containers.stopping.keys() == set(node.known())
    node.at(DEADLINE_S + FORGOTTEN_AFTER_S).stop_due()
    assert (node.known(), node.gate.containers.stopping, node.gate._asked) == ([], {}, set())


def test_who_was_asked_and_has_ended_is_not_remembered_as_asked(node: Node, children: Children) -> None:
    child = runs(node, children.start())
    node.gate.starting(pod(), container())
    node.at(DEADLINE_S).stop_due()
    end_of(child)
    node.proc.drop(child)
    node.at(DEADLINE_S + FORGOTTEN_AFTER_S).stop_due()
    assert node.gate._asked == set()


def test_a_lease_that_lives_again_ends_what_was_being_ended_and_nothing_else(node: Node, children: Children) -> None:
    child = runs(node, children.start(*TRAPS))
    node.gate.starting(pod(), container(A))
    node.at(DEADLINE_S).stop_due()
    lease(node.guard, DEADLINE_S, 600.0)
    other = runs(node, children.start(), B)
    node.gate.starting(pod("q", "L.2"), container(B, of="q"))
    node.at(DEADLINE_S + 20).stop_due()
    assert end_of(child) == -signal.SIGKILL
    assert killed_by_us(other)


# --- notes ------------------------------------------------------------------------------------------------------------


def test_the_note_is_there_once_when_the_container_is_asked_to_end(node: Node, children: Children) -> None:
    path = node.note(text="step 7")
    child = runs(node, children.start(*TRAPS))
    node.gate.starting(pod(), container(note=str(path)))
    for later_s in (0.0, 0.25, 20.0):
        node.at(DEADLINE_S + later_s).stop_due()
        assert path.read_text() == f"step 7\n{GUARD_STOPPED}"
    end_of(child)


def test_one_that_was_created_under_the_lease_and_is_refused_its_start_gets_the_note(node: Node) -> None:
    """Its kubelet takes a refused start for the end of the container; a refused creation it tries again."""
    path = node.note()
    one = container(note=str(path))
    node.at(DEADLINE_S - 0.1).starting(pod(), one)
    with pytest.raises(Refused):
        node.at(DEADLINE_S).starting(pod(), one)
    assert path.read_text() == f"\n{GUARD_STOPPED}"


def test_one_that_is_refused_its_creation_gets_no_note(node: Node) -> None:
    path = node.note()
    with pytest.raises(Refused):
        node.at(DEADLINE_S).starting(pod(), container(note=str(path)))
    assert path.read_text() == ""


def test_one_that_has_ended_by_itself_gets_no_note(node: Node) -> None:
    path = node.note()
    node.gate.starting(pod(), container(note=str(path)))
    node.at(DEADLINE_S).stop_due()
    assert path.read_text() == ""


def test_a_mount_of_another_pod_or_container_is_not_written_to(node: Node, children: Children) -> None:
    path = node.note("another", text="mine")
    child = runs(node, children.start())
    node.gate.starting(pod(), container(note=str(path)))
    node.at(DEADLINE_S).stop_due()
    assert end_of(child) == -signal.SIGTERM
    assert path.read_text() == "mine"


def test_a_note_that_cannot_be_written_keeps_nobody_from_ending(node: Node, children: Children) -> None:
    path = node.note()
    child = runs(node, children.start())
    node.gate.starting(pod(), container(note=str(path)))
    path.unlink()
    node.at(DEADLINE_S).stop_due()
    assert end_of(child) == -signal.SIGTERM
    assert not path.exists()


# --- a later start of the guard ---------------------------------------------------------------------------------------


def test_a_guard_that_starts_anew_and_hears_nobody_ends_what_an_earlier_one_let_start(
    node: Node, children: Children
) -> None:
    child, held = runs(node, children.start()), runs(node, children.start(), B)
    node.start(leased("L.2"))
    node.gate.starting(pod(), container(A))
    node.gate.starting(pod("q", "L.2"), container(B, of="q"))
    node.start(starting(*Disk(node.folder / "state").kept.hold))
    node.at(START_S + RENEWAL_S - 0.1).stop_due()
    assert child.poll() is None
    node.at(START_S + RENEWAL_S).stop_due()
    assert end_of(child) == -signal.SIGTERM
    assert killed_by_us(held)


def test_a_guard_that_starts_anew_gives_no_second_grace_and_no_second_chance(node: Node, children: Children) -> None:
    child = runs(node, children.start(*TRAPS))
    node.gate.starting(pod(), container())
    node.at(DEADLINE_S).stop_due()
    node.start(leased())
    lease(node.guard, DEADLINE_S + 15, 600.0)
    node.at(DEADLINE_S + 20).stop_due()
    assert end_of(child) == -signal.SIGKILL


def test_times_of_an_earlier_boot_count_from_now(node: Node) -> None:
    node.gate.starting(pod(), container())
    node.at(DEADLINE_S).stop_due()
    node.clock.now_s = 5.0
    node.start(starting())
    assert node.gate.containers.stopping == {A: 5.0}


def test_a_state_that_cannot_be_read_is_as_none(node: Node) -> None:
    node.gate.starting(pod(), container())
    (node.folder / "state" / NAME).write_bytes(b'{"containers": 7}')
    node.start(starting())
    assert node.known() == []
    node.gate.listed([pod()], [container()])
    assert node.known() == [A]
