"""Names of what is there, for the shell's TAB: asked of the server in use, quickly, and nothing where it is away.

No client library is loaded: people wait for this with a finger on the key.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import click

from federation.cli.session import World
from federation.cli.settings import Flags, resolve

ANSWER_S: Final = 1.0  # longer and people type on
NAMES_MAX: Final = 500

Completer = Callable[[click.Context, click.Parameter, str], list[str]]
_KINDS: Final = {
    "podgroup": ("podgroup", "podgroups", "pg", "pgs"),
    "cluster": ("cluster", "clusters", "cl"),
    "queue": ("queue", "queues", "q"),
}
_PATHS: Final = {"podgroup": "/v1/podgroups", "cluster": "/v1/clusters", "queue": "/v1/queues"}
NOUNS: Final = ("podgroups", "clusters", "queues", "decisions")


def group_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return _names("podgroup", ctx, param, incomplete)


def cluster_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return _names("cluster", ctx, param, incomplete)


def nouns(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    del ctx, param
    return [noun for noun in NOUNS if noun.startswith(incomplete)]


def names_of_noun(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of the kind that the word before says."""
    noun = ctx.params.get("noun")
    kind = next((kind for kind, words in _KINDS.items() if noun in words), None)
    return _names(kind, ctx, param, incomplete) if kind else []


def nouns_and_groups(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """First a noun or a group's name; after a noun, names of its kind."""
    words = ctx.params.get(param.name or "") or ()
    kind = next((kind for kind, known in _KINDS.items() if words and words[0] in known), None)
    if kind is not None:
        return _names(kind, ctx, param, incomplete)
    return nouns(ctx, param, incomplete)[:3] + _names("podgroup", ctx, param, incomplete)


def _names(kind: str, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    taken = ctx.params.get(param.name or "")
    already = set(taken) if isinstance(taken, tuple) else set()
    prefix, slash, wanted = incomplete.rpartition("/")
    before = f"{prefix}{slash}" if prefix in _KINDS[kind] else ""
    if slash and not before:
        return []
    found = (f"{before}{name}" for name in _asked(kind, ctx) if name.startswith(wanted))
    return [name for name in found if name not in already]


def _asked(kind: str, ctx: click.Context) -> list[str]:
    """The names that the server lists; none when anything at all is in the way."""
    world = ctx.find_object(World) or World()
    try:
        settings = resolve(_flags(ctx.params), world.environment)
        query = {"namespace": settings.namespace, "limit": NAMES_MAX} if kind == "podgroup" else {}
        listing = _get(settings.server.partition(",")[0], f"{_PATHS[kind]}?{urlencode(query)}", settings.token)
        return [str(item["metadata"]["name"]) for item in listing["items"]]
    except Exception:  # noqa: BLE001 - TAB never shows an error
        return []


def _flags(params: Mapping[str, Any]) -> Flags:
    named = {name: params.get(name) or "" for name in ("server", "token_file", "context", "dir", "namespace")}
    return Flags(**named)


def _get(server: str, path: str, token: str) -> Any:
    import http.client

    address = urlsplit(server)
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    connection = kind(address.netloc, timeout=ANSWER_S)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()
