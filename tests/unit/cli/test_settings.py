"""Which server, as whom: flags win over variables, variables over the context, the context over the local fleet."""

import json
from pathlib import Path

import pytest

from federation.cli.errors import CliError
from federation.cli.settings import Flags, Settings, default_dir, resolve

CONFIG = """
current-context: lab
contexts:
- {name: lab, server: "http://lab:1", token: lab-token, namespace: vision}
- {name: prod, server: "https://prod", token-file: TOKEN}
- {name: mine, dir: FLEET}
- {name: odd, sever: "http://x"}
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a configuration file, a token file, and two local fleets: the default one and another."""
    (tmp_path / "token").write_text("file-token\n")
    config = tmp_path / ".config/muster/config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(CONFIG.replace("TOKEN", f"{tmp_path}/token").replace("FLEET", f"{tmp_path}/fleet"))
    for folder, port in ((tmp_path / ".local/share/muster", 11), (tmp_path / "fleet", 22)):
        folder.mkdir(parents=True)
        state = {"clusters": [], "nodes": [], "preset": "fast", "ports": {"server": port}}
        (folder / "up.json").write_text(json.dumps(state))
        tokens = {"principals": [{"name": "operator", "token": f"token-{port}"}]}
        (folder / "tokens.json").write_text(json.dumps(tokens))
    return tmp_path


LAB = Settings("http://lab:1", "lab-token", "vision")


@pytest.mark.parametrize(
    ("flags", "variables", "wanted"),
    [
        pytest.param(Flags(), {}, LAB, id="current context"),
        pytest.param(Flags(namespace="ml"), {}, Settings("http://lab:1", "lab-token", "ml"), id="-n wins"),
        pytest.param(
            Flags(), {"MUSTER_NAMESPACE": "ml"}, Settings("http://lab:1", "lab-token", "ml"), id="namespace variable"
        ),
        pytest.param(
            Flags(context="prod"), {}, Settings("https://prod", "file-token", "default"), id="context with token file"
        ),
        pytest.param(
            Flags(),
            {"MUSTER_CONTEXT": "prod"},
            Settings("https://prod", "file-token", "default"),
            id="context variable",
        ),
        pytest.param(
            Flags(context="mine"), {}, Settings("http://127.0.0.1:22", "token-22", "default"), id="context with folder"
        ),
        pytest.param(
            Flags(),
            {"MUSTER_SERVER": "http://v:2", "MUSTER_TOKEN": "v"},
            Settings("http://v:2", "v", "vision"),
            id="variables win over the context",
        ),
        pytest.param(
            Flags(server="http://f:3"),
            {"MUSTER_SERVER": "http://v:2", "MUSTER_DIR": "/fleet", "MUSTER_TOKEN": "v"},
            Settings("http://f:3", "v", "vision"),
            id="--server wins over variables",
        ),
        pytest.param(
            Flags(server="http://f:3", token_file="HOME/token"),
            {"MUSTER_TOKEN": "v"},
            Settings("http://f:3", "file-token", "vision"),
            id="--token-file wins over the token variable",
        ),
        pytest.param(
            Flags(dir="HOME/fleet"),
            {"MUSTER_SERVER": "http://v:2"},
            Settings("http://127.0.0.1:22", "token-22", "vision"),
            id="--dir wins over the server variable",
        ),
        pytest.param(
            Flags(),
            {"MUSTER_DIR": "HOME/fleet"},
            Settings("http://127.0.0.1:22", "token-22", "vision"),
            id="folder variable",
        ),
        pytest.param(
            Flags(server="http://f:3"),
            {},
            Settings("http://f:3", "", "vision"),
            id="another server never gets the context's token",
        ),
        pytest.param(
            Flags(),
            {"MUSTER_CONFIG": "/dev/null"},
            Settings("http://127.0.0.1:11", "token-11", "default"),
            id="the local fleet in the default folder",
        ),
    ],
)
def test_what_is_used(home: Path, flags: Flags, variables: dict[str, str], wanted: Settings) -> None:
    def at_home(text: str) -> str:
        return text.replace("HOME", str(home))

    flags = Flags(flags.server, at_home(flags.token_file), flags.context, at_home(flags.dir), flags.namespace)
    environment = {"HOME": str(home)} | {key: at_home(value) for key, value in variables.items()}
    assert resolve(flags, environment) == wanted


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (Flags(context="none"), "there is no context 'none'"),
        (Flags(context="odd"), "unknown field 'sever'"),
        (Flags(server="lab:1"), "server 'lab:1' is not an http:// or https:// URL"),
        (Flags(dir="/nowhere"), "there is no local fleet in /nowhere"),
        (Flags(token_file="/nowhere"), "token file /nowhere: No such file or directory"),
    ],
)
def test_what_is_refused(home: Path, flags: Flags, what: str) -> None:
    with pytest.raises(CliError) as caught:
        resolve(flags, {"HOME": str(home)})
    assert what in caught.value.what


@pytest.mark.parametrize(("text", "what"), [("a: [", "while parsing"), ("- a", "is not a mapping")])
def test_a_broken_configuration_file_is_named(home: Path, text: str, what: str) -> None:
    path = home / "broken.yaml"
    path.write_text(text)
    with pytest.raises(CliError) as caught:
        resolve(Flags(), {"HOME": str(home), "MUSTER_CONFIG": str(path)})
    assert caught.value.what.startswith(f"{path}")
    assert what in caught.value.what


def test_a_broken_state_file_is_named(home: Path) -> None:
    (home / "fleet/up.json").write_text("{")
    with pytest.raises(CliError) as caught:
        resolve(Flags(dir=str(home / "fleet")), {"HOME": str(home)})
    assert caught.value.what.startswith(f"{home}/fleet/up.json cannot be read: ")


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"HOME": "/h"}, "/h/.local/share/muster"),
        ({"HOME": "/h", "XDG_DATA_HOME": "/data"}, "/data/muster"),
        ({"HOME": "/h", "XDG_DATA_HOME": "/data", "MUSTER_DIR": "/mine"}, "/mine"),
    ],
)
def test_the_default_folder(environment: dict[str, str], folder: str) -> None:
    assert default_dir(environment) == Path(folder)


def test_files_that_are_not_text_are_named(home: Path) -> None:
    (home / "bytes").write_bytes(b"\xff\xfe")
    for flags, variables, what in (
        (Flags(server="http://lab", token_file=f"{home}/bytes"), {}, f"token file {home}/bytes is not text"),
        (Flags(), {"MUSTER_CONFIG": f"{home}/bytes"}, f"{home}/bytes is not text in UTF-8"),
    ):
        with pytest.raises(CliError) as caught:
            resolve(flags, {"HOME": str(home), **variables})
        assert caught.value.what == what
