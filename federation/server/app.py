"""The HTTP application: puts the routes together, finds out who calls, and turns every error into a Problem.

Routes live in `routes_*`; none of them decides anything, they ask the loop and render the state.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any, Final

import structlog
from fastapi import Depends, FastAPI, Header, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from federation.core.events import Accepted, Declined, PersonRequest
from federation.manifests.faults import fault_of, fault_of_items
from federation.manifests.strict import ManifestError, read_json
from federation.server.feed import Feed
from federation.server.forwarding import Forwarding
from federation.server.loop import ReplicaLoop
from federation.server.metrics import Metrics
from federation.server.peers import Peers
from federation.server.problems import ProblemError, from_declined, from_fault, problem_response
from federation.server.tokens import Principal, Principals

API_BODY_BYTES_MAX: Final = 1024 * 1024  # DESIGN §15
CLIENT_GONE: Final = 499  # nginx' number for it; only metrics see it
REQUEST_ID_CHARS_MAX: Final = 128

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Service:
    """Everything a route needs."""

    loop: ReplicaLoop
    feed: Feed
    principals: Principals
    metrics: Metrics
    peers: Peers | None = None  # where the store admits several servers

    async def ask(self, request: PersonRequest) -> Accepted:
        """The landed answer; a declined one is raised as a Problem."""
        answer = await self.loop.ask(request)
        if isinstance(answer, Declined):
            raise from_declined(answer)
        return answer


# Dependencies are coroutines even where they await nothing: FastAPI runs plain functions in threads, at a third of the
# cost of a whole submission each.


async def service_of(request: Request) -> Service:
    found = request.app.state.service
    assert isinstance(found, Service)
    return found


async def principal_of(request: Request, authorization: Annotated[str, Header()] = "") -> Principal:
    """Who calls, by bearer token; a 401 Problem otherwise."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise ProblemError(401, "Unauthenticated", "no bearer token", "Authorization", "set MUSTER_TOKEN, or --dir")
    principal = (await service_of(request)).principals.of_token(token)
    if principal is None:
        raise ProblemError(401, "Unauthenticated", "unknown token", "Authorization", "use a token of this server")
    return principal


async def request_id_of(request_id: Annotated[str, Header()] = "") -> str:
    """The caller's request id, or a fresh one: then a repeat is a new request."""
    if len(request_id) > REQUEST_ID_CHARS_MAX:
        detail = f"{len(request_id)} characters, at most {REQUEST_ID_CHARS_MAX}"
        raise ProblemError(422, "Limit", detail, "Request-Id", "use a shorter request id")
    return request_id or uuid.uuid4().hex


async def known_query(request: Request) -> None:
    """A Problem for a query field that the route does not know: it would be passed over in silence. Probes and scrapers
    may add what they like."""
    if not request.query_params or not request.url.path.startswith("/v1/"):
        return
    known = _query_fields(request.scope["route"].dependant)
    unknown = sorted(request.query_params.keys() - known)
    if unknown:
        shown = ", ".join(sorted(known)) or "none"
        raise ProblemError(422, "UnknownField", f"unknown query field {unknown[0]!r}", unknown[0], f"known: {shown}")


def _query_fields(dependant: Dependant) -> set[str]:
    """The names of a route's query fields, its dependencies' with them."""
    names: set[str] = set()
    for field in dependant.query_params:
        model = field.field_info.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            names |= {one.alias or name for name, one in model.model_fields.items()}
        else:
            names.add(field.alias)
    return names.union(*map(_query_fields, dependant.dependencies))


async def body_of(request: Request) -> Any:
    """The JSON body, read strictly; Problems for size, form, depth, duplicate keys and NaN."""
    return read_json(await raw_body_of(request), bytes_max=API_BODY_BYTES_MAX)


async def raw_body_of(request: Request) -> bytes:
    """The body, refused as soon as it is known to be too large."""
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > API_BODY_BYTES_MAX:
        raise _too_large(int(length))
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > API_BODY_BYTES_MAX:
            raise _too_large(size)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(size: int) -> ProblemError:
    detail = f"body of {size} bytes, at most {API_BODY_BYTES_MAX} are read"
    return ProblemError(413, "TooLarge", detail, "body", "send less")


Serving = Annotated[Service, Depends(service_of)]
Caller = Annotated[Principal, Depends(principal_of)]
RequestId = Annotated[str, Depends(request_id_of)]
Body = Annotated[Any, Depends(body_of)]
RawBody = Annotated[bytes, Depends(raw_body_of)]


def make_app(service: Service) -> FastAPI:
    """The application with all routes and error handlers."""
    from federation.server import (
        routes_agents,
        routes_bulk,
        routes_clusters,
        routes_meta,
        routes_podgroups,
        routes_queues,
        routes_store,
    )

    app = FastAPI(
        title="Muster",
        version=version("muster-fleet"),
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(known_query)],
    )
    app.state.service = service
    for module in (
        routes_podgroups,
        routes_bulk,
        routes_clusters,
        routes_queues,
        routes_agents,
        routes_store,
        routes_meta,
    ):
        app.include_router(module.router)
    _handle_errors(app)
    if service.peers is not None:
        app.add_middleware(Forwarding, loop=service.loop, peers=service.peers)
    app.add_middleware(_Observer, metrics=service.metrics)
    return app


class _Observer:
    """Counts and times every answer. A plain ASGI layer: one made of request and response objects costs two tasks and
    two queues for each call."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s = time.perf_counter()

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = getattr(scope.get("route"), "path", "unmatched")
                self._metrics.answered(scope["method"], path, message["status"], time.perf_counter() - started_s)
            await send(message)

        await self._app(scope, receive, observed)


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(ProblemError)
    async def problem(request: Request, error: ProblemError) -> JSONResponse:
        return problem_response(request, error)

    @app.exception_handler(ManifestError)
    async def manifest(request: Request, error: ManifestError) -> JSONResponse:
        return problem_response(request, from_fault(fault_of(error)))

    @app.exception_handler(ValidationError)
    async def model(request: Request, error: ValidationError) -> JSONResponse:
        return problem_response(request, from_fault(fault_of(error)))

    @app.exception_handler(RequestValidationError)
    async def parameters(request: Request, error: RequestValidationError) -> JSONResponse:
        items = [{**item, "loc": item["loc"][1:]} for item in error.errors()]  # without "query", "path" or "header"
        return problem_response(request, from_fault(fault_of_items(items)))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        missing = error.status_code == 404
        reason, where = ("NotFound", "path") if missing else ("MethodNotAllowed", "method")
        detail = f"{request.method} {request.url.path}: {error.detail}"
        return problem_response(request, ProblemError(error.status_code, reason, detail, where, "see /openapi.json"))

    @app.exception_handler(ClientDisconnect)
    async def gone(_request: Request, _error: ClientDisconnect) -> Response:
        """The caller gave up before its body was read: nobody is left to answer, and nothing is wrong with us."""
        return Response(status_code=CLIENT_GONE)

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> JSONResponse:
        log.error("request.failed", path=request.url.path, error=repr(error))
        return problem_response(
            request, ProblemError(500, "InternalError", "a fault of the server; it is logged", "", "report it")
        )
