"""What `muster-simkube` cannot start on, it says in a line; nothing is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster_agents.simkube.main import FAILED, main

KUBELETS = ("kubelets", "--api", "http://127.0.0.1:1", "--nodes", "1xA100-80:8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(("apiserver", "--port", "65536"), "'65536' is not a port from 0 to 65535", id="a port too high"),
        pytest.param(("run", "--port", "-1"), "'-1' is not a port", id="a port below 0"),
        pytest.param(("apiserver", "--name", "C_1"), "'C_1' is no name of a cluster", id="a name"),
        pytest.param(("kubelets", "--api", "there"), "'there' is not an http:// or https:// URL", id="a URL"),
        pytest.param((*KUBELETS, "--guard-url", "there"), "'there' is not an http", id="the guards' URL"),
        pytest.param((*KUBELETS, "--heartbeat-s", "nan"), "'nan' is not a number of seconds above 0", id="no number"),
        pytest.param((*KUBELETS, "--guard-renewal-s", "0"), "'0' is not a number of seconds", id="no time at all"),
        pytest.param((*KUBELETS, "--start-delay-s", "a:b"), "'a:b' is not LEAST:MOST", id="a span of words"),
        pytest.param((*KUBELETS, "--stop-delay-s", "0:inf"), "'0:inf' is not LEAST:MOST", id="an endless span"),
    ],
)
def test_an_argument_that_is_none_is_told_with_its_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([words[0], "--dir", str(tmp_path), *words[1:]])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "apiserver"])
def test_a_token_file_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert main([command, "--dir", str(tmp_path), "--token-file", str(tmp_path / "absent")]) == FAILED
    assert f"muster-simkube: [Errno 2] No such file or directory: '{tmp_path}/absent'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "apiserver"])
def test_a_folder_that_is_a_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    (tmp_path / "file").write_text("")
    assert main([command, "--dir", str(tmp_path / "file")]) == FAILED
    assert "File exists" in capsys.readouterr().err
