"""Where this cluster's node guards ask how long their containers may run on (`POST /guard`, msgpack both ways).

Inside the cluster only. The rules are `core.guard`'s and the reconciler's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec
import structlog
from aiohttp import web

from federation.protocol.messages import UNREADABLE, BareGuardAsk, GuardAnswer, GuardAsk

BODY_BYTES_MAX: Final = 64 * 1024
NAME_CHARS_MAX: Final = 253  # of a node
MSGPACK: Final = "application/msgpack"

log = structlog.get_logger()

Answer = Callable[[GuardAsk], Awaitable[GuardAnswer | None]]

_ask_decoder = msgspec.msgpack.Decoder(GuardAsk)
_bare_decoder = msgspec.msgpack.Decoder(BareGuardAsk)
_encoder = msgspec.msgpack.Encoder()


def read_ask(data: bytes) -> tuple[GuardAsk, str]:
    """The ask, and what is wrong with it. One of `UNREADABLE` for what is none. What it says of GPUs beyond the limits
    is left out and no reason to give no answer: a guard without one stops what runs on its node."""
    try:
        return _ask_decoder.decode(data), ""
    except UNREADABLE as error:
        bare = _bare_decoder.decode(data)
        return GuardAsk(node=bare.node, ask_id=bare.ask_id), str(error)


async def serve_guards(answer: Answer, *, host: str, port: int, ports_file: Path | None) -> web.AppRunner:
    """Listening on return; `cleanup()` the runner to stop. 503: the agent has no word to give now."""

    told: list[str] = []

    async def guard(request: web.Request) -> web.Response:
        try:
            ask, wrong = read_ask(await request.read())
        except UNREADABLE as error:
            return web.Response(status=422, text=str(error))
        if wrong and not told:
            told.append(ask.node)  # once: anybody may ask, as often as they like
            log.warning("guard.gpus_unreadable", node=ask.node[:NAME_CHARS_MAX], error=wrong)
        reply = await answer(ask)
        if reply is None:
            return web.Response(status=503)
        return web.Response(body=_encoder.encode(reply), content_type=MSGPACK)

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "pid": os.getpid()})

    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app.add_routes([web.post("/guard", guard), web.get("/healthz", healthz)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    if ports_file is not None:
        bound = runner.addresses[0][1]
        scratch = ports_file.with_suffix(".tmp")
        scratch.write_text(json.dumps({"guard": bound, "pid": os.getpid()}))
        scratch.replace(ports_file)
    return runner
