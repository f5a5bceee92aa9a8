"""Errors: at most two lines on stderr, what and where and what to do, nothing on stdout, and the exit code."""

from pathlib import Path

import pytest

from federation.cli.errors import ExitCode
from federation.cli.failures import from_server
from muster.errors import MusterError, ProtocolError
from tests.unit.cli.conftest import Muster
from tests.unit.cli.stub import Stub, problem


@pytest.mark.parametrize(
    ("arguments", "code", "err"),
    [
        pytest.param(
            ("get", "pg", "gone"),
            3,
            "error: name: no PodGroup 'gone' in namespace 'default' (UnknownGroup)\n  see `muster get podgroups -A`\n",
            id="not found",
        ),
        pytest.param(
            ("cancel", "train", "gone"),
            3,
            "error: name: no PodGroup 'gone' in namespace 'default' (UnknownGroup)\n  see `muster get podgroups -A`\n",
            id="the second of two",
        ),
        pytest.param(
            ("get", "pods"),
            2,
            "error: 'pods' cannot be listed\n  one of podgroups (pg), clusters (cl), queues (q), decisions\n",
            id="unknown noun",
        ),
        pytest.param(
            ("get", "pg", "--xyz"),
            2,
            "error: No such option '--xyz'.\n  see `muster get --help`\n",
            id="unknown option",
        ),
        pytest.param(("launch",), 2, "error: No such command 'launch'.\n  see `muster --help`\n", id="unknown command"),
        pytest.param(
            ("get", "pg", "-l", "team"),
            2,
            "error: label selector 'team' is not key=value\n  correct -l\n",
            id="label without value",
        ),
        pytest.param(
            ("get", "pg", "-l", "team!=x"),
            2,
            "error: label selector 'team!=x' is not key=value\n  correct -l\n",
            id="inequality",
        ),
        pytest.param(
            ("submit", "-f", "/no/such/file.yaml"),
            2,
            "error: /no/such/file.yaml: No such file or directory\n  correct -f\n",
            id="no such file",
        ),
        pytest.param(
            ("submit",),
            2,
            "error: no manifest is named\n  give one with -f FILE, or -f - for standard input\n",
            id="no file",
        ),
        pytest.param(
            ("cancel", "cluster/c-1"),
            2,
            "error: 'cluster/c-1' does not name a podgroup\n  write podgroup/NAME or NAME\n",
            id="wrong kind",
        ),
        pytest.param(
            ("describe", "cluster"),
            2,
            "error: which cluster?\n  name one: muster describe cluster NAME\n",
            id="no name",
        ),
        pytest.param(
            ("submit", "--timeout", "soon"),
            2,
            "error: Invalid value for '--timeout': 'soon' is not a duration such as 90s, 10m or 2h\n"
            "  see `muster submit --help`\n",
            id="no duration",
        ),
        pytest.param(
            ("get", "pg", "--token-file", "/no/such/token"),
            2,
            "error: token file /no/such/token: No such file or directory\n  correct --token-file\n",
            id="no token file",
        ),
        pytest.param(
            ("get", "cl", "-q", "research"),
            2,
            "error: --queue does not filter clusters\n  leave it out\n",
            id="a filter of something else",
        ),
        pytest.param(
            ("get", "decisions", "train"),
            2,
            "error: decisions have no names\n  see `muster history train`\n",
            id="a decision by name",
        ),
        pytest.param(
            ("history", "train", "--cluster", "c-1"),
            2,
            "error: --cluster is for the whole log, not for a PodGroup's\n  leave one out\n",
            id="a group's history of a cluster",
        ),
        pytest.param(
            ("bench", "store", "--seconds", "nan"),
            2,
            "error: Invalid value for '--seconds': nan is not a finite number\n  see `muster bench store --help`\n",
            id="not a number",
        ),
        pytest.param(
            ("bench", "fleet", "--rate", "inf"),
            2,
            "error: Invalid value for '--rate': inf is not a finite number\n  see `muster bench fleet --help`\n",
            id="infinite",
        ),
        pytest.param(
            ("cancel", ""),
            4,
            "error: name: '' names nothing (BadValue)\n  give a name or a uid\n",
            id="an empty name",
        ),
        pytest.param(
            ("get", "pg", "--context", "lab"),
            1,
            None,
            id="no such context",
        ),
    ],
)
def test_mistakes_are_told_in_two_lines(muster: Muster, arguments: tuple[str, ...], code: int, err: str | None) -> None:
    shown = muster(*arguments)
    assert shown.code == code
    assert err is None or shown.err == err
    assert shown.err.startswith("error: ")
    assert len(shown.err.splitlines()) <= 2


@pytest.mark.parametrize(
    ("status", "reason", "code"),
    [
        (400, "BadJson", 4),
        (401, "Unauthenticated", 4),
        (403, "ForbiddenQueue", 4),
        (404, "UnknownCluster", 3),
        (409, "NameTaken", 4),
        (422, "Invalid", 4),
        (500, "InternalError", 1),
    ],
)
def test_what_the_server_refuses_has_an_exit_code(
    muster: Muster, stub: Stub, status: int, reason: str, code: int
) -> None:
    stub.answers["GET", "/v1/clusters/c-1"] = problem(status, reason, "so it is", "field", "do this")
    shown = muster("get", "cl", "c-1")
    assert (shown.code, shown.out, shown.err) == (code, "", f"error: field: so it is ({reason})\n  do this\n")


def test_a_server_that_is_not_there_exits_with_6(muster: Muster) -> None:
    shown = muster("get", "pg", MUSTER_SERVER="http://127.0.0.1:1")
    assert shown.code == 6
    assert shown.err.startswith("error: http://127.0.0.1:1 cannot be reached: ")
    assert shown.err.endswith(
        "\n  is it running? `muster up` starts one here; --server or MUSTER_SERVER names another\n"
    )


def test_without_any_server_the_error_says_how_to_get_one(muster: Muster, tmp_path: Path) -> None:
    shown = muster("get", "pg", MUSTER_SERVER="")
    assert (shown.code, shown.err) == (
        6,
        (
            f"error: no server is named, and there is no local fleet in {tmp_path}/.local/share/muster\n"
            "  start a fleet here with `muster up`, or name a server with --server or MUSTER_SERVER\n"
        ),
    )


def test_a_refused_manifest_is_named_with_document_and_field(muster: Muster, tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    good = "name: a\nroles: [{template: {}}]\n"
    path.write_text(f"{good}---\n{good.replace('roles', 'rolls')}")
    shown = muster("submit", "-f", str(path))
    assert (shown.code, shown.err) == (
        4,
        (
            f"error: {path}: document 2: roles: Field required; rolls: Extra inputs are not permitted (MissingField)\n"
            "  add the field; nothing was submitted\n"
        ),
    )


def test_a_manifest_that_the_server_refuses_is_named_too(muster: Muster, stub: Stub, tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    path.write_text("name: a\nqueue: nope\nroles: [{template: {}}]\n")
    stub.answers["POST", "/v1/podgroups"] = problem(422, "UnknownQueue", "no queue 'nope'", "queue", "create it")
    shown = muster("submit", "-f", str(path))
    assert (shown.code, shown.err) == (4, f"error: {path}: queue: no queue 'nope' (UnknownQueue)\n  create it\n")


def test_a_value_from_the_server_never_breaks_the_line(muster: Muster, stub: Stub) -> None:
    stub.answers["GET", "/v1/clusters/c-1"] = problem(422, "Invalid", "two\nlines\tand a tab", "", "one\n\nremedy")
    assert muster("get", "cl", "c-1").err == "error: two lines and a tab (Invalid)\n  one remedy\n"


@pytest.mark.parametrize(
    ("error", "what", "code"),
    [
        (MusterError("Odd", ""), "Odd", ExitCode.ERROR),
        (ProtocolError("UnexpectedAnswer", "GET /x: not JSON"), "GET /x: not JSON (UnexpectedAnswer)", ExitCode.ERROR),
        (MusterError("Odd", "queue: bad", field="queue"), "queue: bad (Odd)", ExitCode.ERROR),
    ],
)
def test_a_field_or_reason_is_not_said_twice(error: MusterError, what: str, code: ExitCode) -> None:
    shown = from_server(error)
    assert (shown.what, shown.code) == (what, code)
