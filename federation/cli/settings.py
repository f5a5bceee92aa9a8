"""Which server, as whom, in which namespace: flags, then MUSTER_* variables, then the context of the configuration
file, then a local fleet in the default folder. Reads files; talks to nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from federation.cli.errors import CliError, ExitCode

NAMESPACE_DEFAULT: Final = "default"
CONFIG_BYTES_MAX: Final = 1024 * 1024
CONTEXT_FIELDS: Final = frozenset({"name", "server", "token", "token-file", "namespace", "dir"})


@dataclass(frozen=True, slots=True)
class Flags:
    """What the command line said; empty where it said nothing."""

    server: str = ""
    token_file: str = ""
    context: str = ""
    dir: str = ""
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    server: str  # or several, with commas between them
    token: str
    namespace: str


def default_dir(environment: Mapping[str, str]) -> Path:
    """The folder of the local fleet unless another is named."""
    if environment.get("MUSTER_DIR"):
        return Path(environment["MUSTER_DIR"]).expanduser()
    data = environment.get("XDG_DATA_HOME") or f"{home(environment)}/.local/share"
    return Path(data) / "muster"


def home(environment: Mapping[str, str]) -> Path:
    return Path(environment["HOME"]) if environment.get("HOME") else Path.home()


def resolve(flags: Flags, environment: Mapping[str, str]) -> Settings:
    """What to use; CliError says what is missing and how to give it."""
    context = _context(flags.context or environment.get("MUSTER_CONTEXT", ""), environment)
    folder = flags.dir or ("" if flags.server else environment.get("MUSTER_DIR", ""))
    named = flags.server or ("" if flags.dir else environment.get("MUSTER_SERVER", ""))
    namespace = flags.namespace or environment.get("MUSTER_NAMESPACE", "") or context.get("namespace", "")
    token = _token(flags, environment)
    if named:
        server = named
    elif folder:
        server, local_token = _local(Path(folder).expanduser())
        token = token or local_token
    elif context.get("server"):
        server = context["server"]
        token = token or context.get("token", "") or _token_in(context.get("token-file", ""))
    else:
        server, local_token = _local(Path(context.get("dir") or default_dir(environment)).expanduser())
        token = token or local_token
    for address in server.split(","):
        if not address.strip().startswith(("http://", "https://")):
            raise CliError(f"server {address!r} is not an http:// or https:// URL", "correct --server", ExitCode.USAGE)
    return Settings(server, token, namespace or NAMESPACE_DEFAULT)


def _token(flags: Flags, environment: Mapping[str, str]) -> str:
    return _token_in(flags.token_file) if flags.token_file else environment.get("MUSTER_TOKEN", "")


def _token_in(path: str) -> str:
    if not path:
        return ""
    try:
        return Path(path).expanduser().read_text().strip()
    except OSError as error:
        raise CliError(f"token file {path}: {error.strerror}", "correct --token-file", ExitCode.USAGE) from error
    except UnicodeDecodeError as error:
        raise CliError(f"token file {path} is not text", "correct --token-file", ExitCode.USAGE) from error


def _local(folder: Path) -> tuple[str, str]:
    """Server and operator token of the local fleet in `folder`."""
    from federation.cli.local import commands, state

    where = state.FleetDir(folder)
    known = state.load(where)
    if known is None:
        remedy = "start a fleet here with `muster up`, or name a server with --server or MUSTER_SERVER"
        raise CliError(f"no server is named, and there is no local fleet in {folder}", remedy, ExitCode.UNAVAILABLE)
    return commands.server_urls(known), state.token_of(where.tokens, state.OPERATOR) or ""


# --- the configuration file ------------------------------------------------------------------------------------------


def config_path(environment: Mapping[str, str]) -> Path:
    if environment.get("MUSTER_CONFIG"):
        return Path(environment["MUSTER_CONFIG"]).expanduser()
    config = environment.get("XDG_CONFIG_HOME") or f"{home(environment)}/.config"
    return Path(config) / "muster" / "config.yaml"


def _context(name: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The named context, else the current one, else nothing."""
    path = config_path(environment)
    config = _read_config(path)
    wanted = name or str(config.get("current-context", ""))
    if not wanted:
        return {}
    contexts = config.get("contexts", [])
    for entry in contexts if isinstance(contexts, list) else []:
        if isinstance(entry, dict) and entry.get("name") == wanted:
            return _checked(entry, path)
    raise CliError(f"there is no context {wanted!r} in {path}", "add it there, or choose another with --context")


def _checked(entry: Mapping[str, Any], path: Path) -> dict[str, str]:
    unknown = sorted(set(entry) - CONTEXT_FIELDS)
    if unknown:
        known = ", ".join(sorted(CONTEXT_FIELDS))
        raise CliError(f"{path}: context {entry['name']!r}: unknown field {unknown[0]!r}", f"known: {known}")
    return {key: str(value) for key, value in entry.items()}


def _read_config(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise CliError(f"{path}: {error.strerror}", "make it readable, or name another with MUSTER_CONFIG") from error
    except UnicodeDecodeError as error:
        raise CliError(f"{path} is not text in UTF-8", "correct the file") from error
    import yaml

    try:
        config = yaml.safe_load(text[:CONFIG_BYTES_MAX]) or {}
    except yaml.YAMLError as error:
        raise CliError(f"{path}: {' '.join(str(error).split())}", "correct the file") from error
    if not isinstance(config, dict):
        raise CliError(f"{path} is not a mapping", "see docs/using.md for an example")
    return config
