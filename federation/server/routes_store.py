"""`/v1/store`: the server's store, read as it is: for `muster store …` where only the server may open it (SQLite).

Blobs are handed out as bytes; what they mean is the reader's. Nothing here writes.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Query, Response

from federation.server.app import Caller, Service, Serving
from federation.server.auth import authorise
from federation.server.problems import ProblemError
from federation.server.tokens import Verb
from storage.blob import LIST_LIMIT, Blob, BlobName
from storage.errors import UnavailableError

router = APIRouter(prefix="/v1/store", tags=["store"])

MSGPACK: Final = "application/msgpack"
NAMES_MAX: Final = 64  # blobs per call: a reader of the journal asks ahead by so many entries
BYTES_MAX: Final = 8 * 1024 * 1024  # of one answer; the rest is asked for again
PREFIX_CHARS_MAX: Final = 1_024

_encoder = msgspec.msgpack.Encoder()


async def names_of(name: Annotated[list[str], Query()]) -> list[BlobName]:
    """Which blobs are asked for."""
    if len(name) > NAMES_MAX:
        raise ProblemError(422, "Limit", f"{len(name)} names, at most {NAMES_MAX} a call", "name", "ask for fewer")
    return [BlobName(one) for one in name]


@router.get("/blobs", response_class=Response)
async def blobs(service: Serving, caller: Caller, names: Annotated[list[BlobName], Depends(names_of)]) -> Response:
    """The blobs of these names in order, each `[version, data]` or nil where there is none (msgpack). Fewer than asked
    for when they are large."""
    authorise(caller, Verb.OPERATE)
    found = await asyncio.to_thread(_read, service, names)
    return Response(_encoder.encode([blob and (blob.version, blob.data) for blob in found]), media_type=MSGPACK)


def _read(service: Service, names: list[BlobName]) -> list[Blob | None]:
    found: list[Blob | None] = []
    size = 0
    for name in names:
        if found and size > BYTES_MAX:
            break
        try:
            blob = service.loop.store.get(name)
        except UnavailableError as error:
            raise ProblemError(503, "Unavailable", f"{name}: {error.why}", "store", "try again") from error
        size += len(blob.data) if blob else 0
        found.append(blob)
    return found


@router.get("/names")
async def list_names(
    service: Serving,
    caller: Caller,
    prefix: Annotated[str, Query(max_length=PREFIX_CHARS_MAX)] = "",
    start: Annotated[str, Query(max_length=PREFIX_CHARS_MAX)] = "",
    limit: Annotated[int, Query(ge=1, le=LIST_LIMIT)] = LIST_LIMIT,
) -> dict[str, Any]:
    """Names that begin with `prefix` and sort after `start`, in byte order."""
    authorise(caller, Verb.OPERATE)
    try:
        names = await asyncio.to_thread(service.loop.store.list, prefix, start, limit)
    except UnavailableError as error:
        raise ProblemError(503, "Unavailable", error.why, "store", "try again") from error
    return {"kind": "BlobNameList", "items": list(names)}
