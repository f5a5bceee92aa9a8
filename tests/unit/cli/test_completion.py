"""TAB offers what is there, and stays silent where the server is away."""

from __future__ import annotations

import click
import pytest
from click.shell_completion import ShellComplete

from federation.cli.main import muster as command
from federation.cli.session import World
from tests.unit.cli.stub import Stub


def offered(stub: Stub, *words: str, server: str = "") -> list[str]:
    world = World({"MUSTER_SERVER": server or stub.url, "MUSTER_TOKEN": "secret", "HOME": "/nowhere"})
    complete = ShellComplete(command, {"obj": world}, "muster", "_MUSTER_COMPLETE")
    return [item.value for item in complete.get_completions(list(words[:-1]), words[-1])]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("cancel", ""), ["train", "tune"]),
        (("cancel", "tr"), ["train"]),
        (("cancel", "train", ""), ["tune"]),
        (("explain", "pg/t"), ["pg/train", "pg/tune"]),
        (("explain", "cluster/"), []),
        (("history", "tu"), ["tune"]),
        (("logs", "tr"), ["train"]),
        (("get", "po"), ["podgroups"]),
        (("get", "cl", "c-"), ["c-1", "c-2"]),
        (("get", "q", ""), ["research"]),
        (("describe", "queue", ""), ["research"]),
        (("describe", "tr"), ["train"]),
        (("cluster", "drain", ""), ["c-1", "c-2"]),
        (("do",), ["down", "doctor"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_names_of_what_is_there_are_offered(stub: Stub, words: tuple[str, ...], names: list[str]) -> None:
    assert offered(stub, *words) == names


def test_the_server_named_on_the_line_is_asked(stub: Stub) -> None:
    assert offered(stub, "cancel", "--server", stub.url, "", server="http://127.0.0.1:9") == ["train", "tune"]


def test_nothing_is_offered_where_the_server_is_away(stub: Stub) -> None:
    assert offered(stub, "cancel", "", server="http://127.0.0.1:9") == []
    del stub.answers["GET", "/v1/podgroups"]
    assert offered(stub, "cancel", "") == []


def test_the_plugins_completer_asks_the_same_command() -> None:
    from federation.cli.commands.meta import KUBECTL

    assert isinstance(command, click.Group)
    assert KUBECTL.startswith("#!/bin/sh\n")
    assert "_MUSTER_COMPLETE=bash_complete muster" in KUBECTL
