"""`muster-server`: one federation server as a process. `init` makes the data folder, `run` (the default) serves.

What serving takes is loaded by `run` only: it takes a second.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from federation.protocol import arguments
from federation.protocol.packages import refuse_strangers
from federation.protocol.presets import PRESETS
from federation.server.tokens import TOKENS_FILE, TokenFileError, make
from storage.errors import StoreError, UnsupportedFormatError
from storage.root import FORMAT, FORMAT_FIRST

EXIT_ERROR: Final = 1
EXIT_REFUSED: Final = 4
EXIT_UNAVAILABLE: Final = 6


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Entry point. Exit codes as DESIGN §12; the last line on stderr says why."""
    refuse_strangers("muster-server")
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in {"init", "run", "-h", "--help"}:
        arguments.insert(0, "run")
    options = _parser().parse_args(arguments)
    try:
        sys.exit(_init(options) if options.command == "init" else _run(options))
    except TokenFileError as error:
        _fail(EXIT_REFUSED, str(error))
    except UnsupportedFormatError as error:
        _fail(EXIT_REFUSED, f"store: {error}")
    except StoreError as error:
        _fail(EXIT_UNAVAILABLE, f"store: {error}")
    except OSError as error:
        _fail(EXIT_ERROR, str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="muster-server", description="One federation server of Muster.")
    commands = parser.add_subparsers(dest="command", required=True)
    init = commands.add_parser("init", help="make the data folder's token file")
    init.add_argument("--dir", type=Path, required=True)
    init.add_argument("--clusters", type=_clusters, default="", help="names, separated by commas")
    run = commands.add_parser("run", help="serve (the default)")
    run.add_argument("--dir", type=Path, required=True, help="data folder with tokens.json")
    run.add_argument("--store", default="", help="store URL; sqlite in the data folder by default")
    run.add_argument("--name", default="s-1")
    run.add_argument(
        "--listen", type=arguments.address, default="127.0.0.1:0", help="host:port; port 0 takes a free one"
    )
    run.add_argument(
        "--advertise", type=_advertised, default="", help="URL for the other servers; as it listens by default"
    )
    run.add_argument("--nats", default="", help="bus URL; without it only HTTPS is used")
    run.add_argument("--nkey-file", type=Path)
    run.add_argument("--ports-file", type=Path, help="where to write the chosen port as JSON")
    run.add_argument("--preset", choices=sorted(PRESETS), default="default")
    run.add_argument(
        "--format-max",
        type=_format,
        default=os.environ.get("MUSTER_FORMAT_MAX", str(FORMAT)),
        metavar="N",
        help="refuse stores of a newer format, and begin a new one with this: for going back to an older version",
    )
    run.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return parser


def _advertised(url: str) -> str:
    if not url:
        return url
    from federation.server.peers import may_be_called

    if not may_be_called(url):
        raise argparse.ArgumentTypeError(f"{url!r} is neither https:// nor http:// on this machine: tokens go there")
    return url


def _clusters(text: str) -> list[str]:
    return list(dict.fromkeys(arguments.cluster_name(name.strip()) for name in text.split(",") if name.strip()))


def _format(text: str) -> int:
    if not text.isdecimal() or not FORMAT_FIRST <= int(text) <= FORMAT:
        raise argparse.ArgumentTypeError(f"{text!r} is no format of {FORMAT_FIRST} to {FORMAT}")
    return int(text)


def _init(options: argparse.Namespace) -> int:
    options.dir.mkdir(parents=True, exist_ok=True)
    path = options.dir / TOKENS_FILE
    if path.exists():
        sys.stdout.write(f"{path} is there already; left as it is\n")
        return 0
    make(path, options.clusters)
    sys.stdout.write(f"wrote {path}\n")
    return 0


def _run(options: argparse.Namespace) -> int:
    from federation.protocol import eventloop
    from federation.server.loop import HaltedError
    from federation.server.process import serve

    try:
        return eventloop.run(serve(options))
    except HaltedError as error:
        _fail(EXIT_ERROR, f"the journal cannot be followed: {error}")


def _fail(code: int, why: str) -> NoReturn:
    sys.stderr.write(f"muster-server: {why}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
