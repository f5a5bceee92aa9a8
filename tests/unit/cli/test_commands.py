"""What each command asks of the server, and what it prints."""

import json
from pathlib import Path

import pytest

from muster.calls import END
from tests.unit.cli.conftest import Muster
from tests.unit.cli.stub import CLUSTERS, HISTORY, RUNNING, Stub, decision, event, group, listing

HELLO = """
apiVersion: muster.io/v1
kind: PodGroup
metadata: {name: hello}
spec:
  queue: research
  roles:
  - count: 2
    template: {spec: {containers: [{name: main, image: busybox}]}}
"""

QUEUE = """
apiVersion: muster.io/v1
kind: Queue
metadata: {name: research}
spec: {weight: 2, gpu_quota: {"*": 64}}
"""


@pytest.fixture
def hello(tmp_path: Path) -> str:
    path = tmp_path / "hello.yaml"
    path.write_text(HELLO)
    return str(path)


@pytest.fixture
def queue(tmp_path: Path) -> str:
    path = tmp_path / "queue.yaml"
    path.write_text(QUEUE)
    return str(path)


# --- submit and apply ------------------------------------------------------------------------------------------------


def test_submit_sends_the_manifest_as_written_with_the_namespace_filled_in(
    muster: Muster, stub: Stub, hello: str
) -> None:
    shown = muster("submit", "-f", hello, "-n", "vision")
    assert (shown.code, shown.out) == (0, "podgroup/hello submitted (uid l.8194)\n")
    assert stub.asked[0].headers["authorization"] == "Bearer secret"
    assert stub.bodies("POST") == [
        {
            "apiVersion": "muster.io/v1",
            "kind": "PodGroup",
            "metadata": {"namespace": "vision", "name": "hello"},
            "spec": {
                "queue": "research",
                "roles": [{"count": 2, "template": {"spec": {"containers": [{"name": "main", "image": "busybox"}]}}}],
            },
        }
    ]


def test_submit_keeps_the_namespace_of_the_manifest(muster: Muster, stub: Stub, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(HELLO.replace("{name: hello}", "{name: hello, namespace: mine}"))
    muster("submit", "-f", str(path), "-n", "vision")
    assert stub.bodies("POST")[0]["metadata"]["namespace"] == "mine"


@pytest.mark.parametrize(
    ("form", "printed"),
    [
        ("name", "podgroup/hello\n"),
        ("json", '{\n  "uid": "l.8194",\n  "position": 8194,\n  "name": "hello",\n  "namespace": "default"\n}\n'),
        ("yaml", "---\nuid: l.8194\nposition: 8194\nname: hello\nnamespace: default\n"),
    ],
)
def test_submit_prints_what_scripts_need(muster: Muster, hello: str, form: str, printed: str) -> None:
    assert muster("submit", "-f", hello, "-o", form).out == printed


def test_a_request_id_given_by_the_caller_is_used(muster: Muster, stub: Stub, hello: str) -> None:
    muster("submit", "-f", hello, "--request-id", "nightly-7")
    assert stub.asked[0].headers["request-id"] == "nightly-7"


def test_several_manifests_get_request_ids_of_their_own(muster: Muster, stub: Stub, hello: str) -> None:
    muster("submit", "-f", hello, "-f", hello, "--request-id", "nightly-7")
    assert [(asked.path, [item["request_id"] for item in asked.body["items"]]) for asked in stub.asked] == [
        ("/v1/podgroups:bulk", ["nightly-7-0", "nightly-7-1"])
    ]


def test_what_was_refused_of_several_is_told_and_what_was_accepted_stays(muster: Muster, hello: str) -> None:
    shown = muster("submit", "-f", hello, "-f", hello)
    assert (shown.code, shown.out) == (4, "podgroup/hello submitted (uid l.8194)\n")
    what = f"error: {hello}: name: default/hello is l.8194 (NameTaken); 1 were submitted"
    assert shown.err == f"{what}\n  choose another name\n"


def test_what_people_wrote_is_shown_back_in_part_and_without_effect_on_the_terminal(
    muster: Muster, tmp_path: Path
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text('"\\e[2J' + "x" * 5_000 + '": 1\n')
    shown = muster("submit", "-f", str(path))
    assert shown.code == 4
    assert "\x1b" not in shown.err
    assert max(len(line) for line in shown.err.splitlines()) <= 800 + len("error: ")


def test_a_closed_standard_input_is_told_in_words(muster: Muster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)  # as Python has it after `<&-`
    shown = muster("submit", "-f", "-")
    assert (shown.code, shown.err) == (2, "error: standard input is closed\n  give a file with -f\n")
    assert muster("cluster", "confirm-dead", "c-1", "--reason", "burnt down").code == 2


def test_a_dry_run_asks_no_server(muster: Muster, stub: Stub, hello: str) -> None:
    shown = muster("submit", "-f", hello, "--dry-run", MUSTER_SERVER="")
    assert (shown.code, shown.out) == (0, "podgroup/hello is acceptable (dry run)\n")
    assert stub.asked == []


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("json", '{\n  "name": "hello",\n  "namespace": "default",\n  "dry_run": true\n}\n'),
        ("yaml", "---\nname: hello\nnamespace: default\ndry_run: true\n"),
        ("name", "podgroup/hello\n"),
    ],
)
def test_a_dry_run_answers_programs_in_their_form(muster: Muster, stub: Stub, hello: str, form: str, said: str) -> None:
    shown = muster("submit", "-f", hello, "--dry-run", "-o", form, MUSTER_SERVER="")
    assert (shown.code, shown.out) == (0, said)


def test_submit_checks_all_manifests_before_it_sends_the_first(
    muster: Muster, stub: Stub, hello: str, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(HELLO.replace("count: 2", "count: 0"))
    shown = muster("submit", "-f", hello, "-f", str(bad))
    assert shown.code == 4
    assert stub.asked == []


def test_submit_waits_until_it_runs(muster: Muster, stub: Stub, hello: str) -> None:
    stub.answers["GET", "/v1/podgroups/l.8194"] = (200, group("hello", 8194, phase="Running", cluster="c-1"))
    shown = muster("submit", "-f", hello, "--wait")
    assert (shown.code, shown.out) == (0, "podgroup/hello submitted (uid l.8194)\npodgroup/hello Running on c-1\n")


def test_submit_that_waited_in_vain_says_why_and_exits_with_5(muster: Muster, stub: Stub, hello: str) -> None:
    stub.answers["GET", "/v1/podgroups/l.8194"] = (200, group("hello", 8194))
    stub.answers["GET", "/v1/podgroups/l.8194/explain"] = (200, {"summary": "needs 32 GPUs, the best has 16"})
    shown = muster("submit", "-f", hello, "--wait", "--timeout", "0.01s")
    assert (shown.code, shown.err) == (
        5,
        (
            "error: podgroup/hello does not fit now: needs 32 GPUs, the best has 16\n"
            "  it stays queued; see `muster explain l.8194`\n"
        ),
    )


def test_no_time_to_wait_is_not_for_ever(muster: Muster, stub: Stub, hello: str) -> None:
    stub.answers["GET", "/v1/podgroups/l.8194"] = (200, group("hello", 8194))
    stub.answers["GET", "/v1/podgroups/l.8194/explain"] = (200, {"summary": "needs 32 GPUs, the best has 16"})
    assert muster("submit", "-f", hello, "--wait", "--timeout", "0").code == 5


def test_a_time_to_wait_without_waiting_is_a_mistake(muster: Muster, stub: Stub, hello: str) -> None:
    shown = muster("submit", "-f", hello, "--timeout", "10m")
    assert (shown.code, shown.err) == (2, "error: --timeout is how long to wait\n  add --wait\n")
    assert stub.asked == []


def test_submit_stops_waiting_for_what_failed(muster: Muster, stub: Stub, hello: str) -> None:
    stub.answers["GET", "/v1/podgroups/l.8194"] = (200, group("hello", 8194, phase="Failed"))
    shown = muster("submit", "-f", hello, "--wait")
    assert (shown.code, shown.err.splitlines()[0]) == (1, "error: podgroup/hello ended as Failed")


def test_apply_creates_queues(muster: Muster, stub: Stub, queue: str) -> None:
    shown = muster("apply", "-f", queue)
    assert (shown.code, shown.out) == (0, "queue/research applied\n")
    assert stub.bodies("PUT")[0]["spec"] == {"weight": 2, "gpu_quota": {"*": 64}}


def test_apply_of_the_same_group_again_is_a_repeat(muster: Muster, stub: Stub, hello: str) -> None:
    assert muster("apply", "-f", hello).out == "podgroup/hello applied (uid l.8194)\n"
    muster("apply", "-f", hello)
    first, second = (asked.headers["request-id"] for asked in stub.asked)
    assert first == second


def test_a_queue_cannot_be_submitted(muster: Muster, stub: Stub, queue: str) -> None:
    shown = muster("submit", "-f", queue)
    assert (shown.code, shown.err) == (
        4,
        f"error: {queue}: a Queue cannot be submitted\n  use `muster apply`\n",
    )
    assert stub.asked == []


# --- get -------------------------------------------------------------------------------------------------------------


def test_filters_reach_the_server(muster: Muster, stub: Stub) -> None:
    muster("get", "pg", "-n", "ml", "-q", "research", "--phase", "Pending", "--cluster", "c-1", "-l", "b=2,a=1")
    assert stub.asked[0].query == (
        "namespace=ml&queue=research&phase=Pending&cluster=c-1&limit=500&label=a%3D1&label=b%3D2"
    )


def test_the_default_namespace_is_shown_unless_all_are_asked_for(muster: Muster, stub: Stub) -> None:
    muster("get", "pg")
    muster("get", "pg", "-A")
    assert [asked.query for asked in stub.asked] == ["namespace=default&limit=500", "limit=500"]


def test_all_pages_are_followed(muster: Muster, stub: Stub) -> None:
    page = listing("PodGroupList", [RUNNING])[1]
    stub.answers["GET", "/v1/podgroups"] = (200, {**page, "metadata": {"continue": "8192"}})
    shown = muster("get", "pg", "-o", "name", "--limit", "3")
    assert shown.out == "podgroup/train\n" * 3
    assert [asked.query.partition("limit=")[2] for asked in stub.asked] == ["3", "2&continue=8192", "1&continue=8192"]


def test_one_thing_by_name_is_itself_in_json(muster: Muster) -> None:
    for arguments in (("pg", "train"), ("pg/train",)):
        assert json.loads(muster("get", *arguments, "-o", "json").out)["metadata"]["name"] == "train"


def test_headers_can_be_left_out(muster: Muster) -> None:
    shown = muster("get", "q", "--no-headers")
    assert shown.out == "research   2   1   1   *=40,A100-80=32,any=8   *=64\n"


def test_an_empty_listing_says_so_beside_the_output(muster: Muster, stub: Stub) -> None:
    stub.answers["GET", "/v1/clusters"] = listing("ClusterList", [])
    shown = muster("get", "cl")
    assert shown.err == "no clusters found\n"
    assert shown.out.startswith("NAME ")


def test_clusters_can_be_chosen_by_label(muster: Muster) -> None:
    assert muster("get", "clusters", "-l", "region=eu-1", "-o", "name").out == "cluster/c-1\n"


def test_decisions_are_read_to_their_end(muster: Muster, stub: Stub) -> None:
    shown = muster("get", "decisions", "--cluster", "c-1", "-o", "json")
    assert json.loads(shown.out)["items"] == []
    assert stub.asked[0].query == f"cluster=c-1&limit=1000&before={END}"


@pytest.mark.parametrize("command", [("history",), ("get", "decisions")], ids=["history", "get decisions"])
def test_the_newest_of_the_log_are_shown_in_order_as_of_one_group(
    muster: Muster, stub: Stub, command: tuple[str, ...]
) -> None:
    """Of the fleet's log the oldest were shown."""
    pages = {f"limit=1000&before={END}": range(501, 1501), "limit=200&before=501": range(301, 501)}
    for query, positions in pages.items():
        items = [decision(position, "Bound", "bound") for position in positions]
        stub.answers["GET", f"/v1/decisions?{query}"] = listing("DecisionList", items)
    shown = muster(*command, "--limit", "1200", "-o", "name").out.split()
    assert shown == [f"decision/{position}" for position in range(301, 1501)]
    assert [asked.query for asked in stub.asked] == list(pages)


def test_a_log_that_an_older_server_cannot_read_from_its_end_is_not_shown_many_times_over(
    muster: Muster, stub: Stub
) -> None:
    """It does not know `before`, and answers with its oldest page again and again."""
    items = [decision(position, "Bound", "bound") for position in range(1, 1001)]
    stub.answers["GET", "/v1/decisions"] = listing("DecisionList", items)
    outcome = muster("history", "-o", "name")
    assert (outcome.code, outcome.out, len(stub.asked)) == (1, "", 2)
    assert "older than this command" in outcome.err
    assert len(muster("history", "-o", "name", "--limit", "1000").out.split()) == 1000


def test_watching_groups_shows_each_that_changes_as_it_is_then(muster: Muster, stub: Stub) -> None:
    stub.answers["GET", "/v1/podgroups/l.8192"] = (200, RUNNING)
    stub.answers["GET", "/v1/podgroups/l.9000"] = (200, group("other", 9000) | {"spec": {"queue": "other"}})
    changes = [
        decision(20480, "Bound", "bound"),
        decision(20481, "ClusterCordoned", "cordoned", uid="", name=""),
        decision(20482, "Bound", "bound", uid="l.9000"),
        decision(20483, "Bound", "bound", uid="l.gone"),
    ]
    stub.events = ["".join(event(change) for change in changes)]
    shown = muster("get", "pg", "-w", "-q", "research", "-o", "name")
    assert shown.out == "podgroup/train\npodgroup/tune\npodgroup/train\n"
    watches = [asked for asked in stub.asked if asked.path == "/v1/watch"]
    assert [(asked.query, asked.headers.get("last-event-id")) for asked in watches] == [
        ("since=16384", None),
        ("since=16384", "20483"),
    ]


def test_watching_the_history_goes_on_from_its_last_line(muster: Muster, stub: Stub) -> None:
    stub.events = [event(decision(24576, "Bound", "bound"))]
    shown = muster("history", "train", "-w", "-o", "name")
    assert shown.out == "decision/8192\ndecision/16384\ndecision/24576\n"
    assert next(asked.query for asked in stub.asked if asked.path == "/v1/watch") == "since=16384&uid=l.8192"


def test_the_history_can_be_cut_at_both_ends(muster: Muster) -> None:
    assert muster("history", "train", "--since", "8192", "-o", "name").out == "decision/16384\n"
    assert muster("history", "train", "--limit", "1", "-o", "name").out == f"decision/{HISTORY[-1]['position']}\n"


# --- acts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [("cancel", "train", "--reason", "\udced"), ("get", "pg", "\udced")])
def test_an_argument_whose_bytes_are_no_text_is_refused_in_words(
    muster: Muster, stub: Stub, arguments: tuple[str, ...]
) -> None:
    shown = muster(*arguments)
    assert (shown.code, stub.asked) == (4, [])
    assert shown.err == "error: '\\udced' is not UTF-8\n  write it as UTF-8; nothing was sent\n"


@pytest.mark.parametrize(
    ("act", "printed"),
    [
        ("cancel", "podgroup/train is being cancelled (position 24576)\n"),
        ("suspend", "podgroup/train is being suspended (position 24576)\n"),
        ("resume", "podgroup/train is to run (position 24576)\n"),
    ],
)
def test_intents_carry_their_reason(muster: Muster, stub: Stub, act: str, printed: str) -> None:
    shown = muster(act, "podgroup/train", "--reason", "no longer needed")
    assert (shown.code, shown.out) == (0, printed)
    assert stub.asked[0].query == "namespace=default"
    assert stub.bodies("POST") == [{"reason": "no longer needed"}]


@pytest.mark.parametrize(
    ("options", "body", "printed"),
    [
        (("--count", "2"), {"role": "", "count": 2}, "podgroup/train is to have 2 pods (position 24576)\n"),
        (
            ("--role", "worker", "--count", "2"),
            {"role": "worker", "count": 2},
            "podgroup/train is to have 2 pods of role worker (position 24576)\n",
        ),
    ],
    ids=["of the only role", "of a role"],
)
def test_resize_says_how_many_pods(
    muster: Muster, stub: Stub, options: tuple[str, ...], body: dict[str, object], printed: str
) -> None:
    shown = muster("resize", "train", *options)
    assert (shown.code, shown.out) == (0, printed)
    assert stub.bodies("POST") == [body]


def test_resize_without_a_count_is_a_usage_error(muster: Muster, stub: Stub) -> None:
    shown = muster("resize", "train")
    assert shown.code == 2
    assert stub.asked == []


def test_join_says_how_the_cluster_takes_part(muster: Muster, stub: Stub) -> None:
    shown = muster("cluster", "join", "c-3", "--lease-class", "fast", "-l", "region=eu-1", "--accept-unguarded")
    assert (shown.code, shown.out) == (0, "cluster/c-3 joined; it gets work once its agent was admitted\n")
    assert stub.bodies("PUT") == [{"lease_class": "fast", "labels": {"region": "eu-1"}, "accept_unguarded": True}]


@pytest.mark.parametrize(
    ("act", "printed"),
    [
        ("cordon", "cluster/c-1 cordoned (position 24576)\n"),
        ("uncordon", "cluster/c-1 uncordoned (position 24576)\n"),
        ("drain", "cluster/c-1 is being drained (position 24576)\n"),
        ("remove", "cluster/c-1 is no part of the fleet any more (position 24576)\n"),
    ],
)
def test_operators_acts(muster: Muster, act: str, printed: str) -> None:
    assert muster("cluster", act, "c-1").out == printed


def test_confirm_dead_needs_a_reason(muster: Muster, stub: Stub) -> None:
    shown = muster("cluster", "confirm-dead", "c-1", "--yes")
    assert (shown.code, shown.err.splitlines()[0]) == (2, "error: Missing option '--reason'.")
    assert stub.asked == []


def test_confirm_dead_is_not_done_when_nobody_can_be_asked(muster: Muster, stub: Stub) -> None:
    shown = muster("cluster", "confirm-dead", "c-1", "--reason", "rack burnt")
    assert (shown.code, shown.err.splitlines()[1]) == (2, "  add --yes")
    assert stub.asked == []


def test_confirm_dead_passes_the_reason_on(muster: Muster, stub: Stub) -> None:
    shown = muster("cluster", "confirm-dead", "c-1", "--reason", "rack burnt", "--yes")
    assert shown.code == 0
    assert stub.bodies("POST") == [{"reason": "rack burnt"}]


def test_explain_can_tell_scripts_that_it_does_not_fit_now(muster: Muster) -> None:
    assert muster("explain", "tune", "--exit-code").code == 5
    assert muster("explain", "tune").code == 0


def test_a_cluster_that_was_never_heard_of_is_shown_without_numbers(muster: Muster, stub: Stub) -> None:
    stub.answers["GET", "/v1/clusters/c-2"] = (200, CLUSTERS[1])
    assert "Last report:     <none>" in muster("describe", "cluster/c-2").out
