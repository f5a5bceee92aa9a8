"""Raw JSON requests to one Kubernetes API server: authentication, TLS and time-outs by `kubernetes.aio`, no models.

The typed client is not used on purpose: its binding call raises after the bind succeeded, and it decodes a watch seven
times slower. No retries happen here; status 0 means that the outcome is unknown.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import msgspec
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from cluster_agents.core.config import OTHERS_IN_FLIGHT_MAX, STARTS_IN_FLIGHT_MAX

JSON: Final = "application/json"
BODY_BYTES_MAX: Final = 256 * 1024 * 1024  # a 5,000-node list in pages of 500 stays far below
LINE_BYTES_MAX: Final = 4 * 1024 * 1024  # one watch event; etcd holds objects of at most 1.5 MiB
TOKEN_REFRESH_S: Final = 60
TOO_MANY_REQUESTS: Final = 429
RETRY_AFTER_DIGITS_MAX: Final = 6
CONNECTIONS_MAX: Final = STARTS_IN_FLIGHT_MAX + OTHERS_IN_FLIGHT_MAX + 16
"""All that is under way has a connection: the agent's lease must not wait for one behind it. 16 are for it, watches and
lists."""

_decoder = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()
_NO_LIMIT: Final = aiohttp.ClientTimeout(total=None)  # calls are limited as a whole, by `call`
Query = Sequence[tuple[str, str]]


class WatchEndedError(Exception):
    """The stream ended or broke: list again, or go on from the last resourceVersion."""


class KubeConfigError(Exception):
    """No usable way to the API server was given; the message says what is wrong."""


@dataclass(slots=True)
class KubeTransport:
    """One API server. `close` when done."""

    api: ApiClient
    _refresher: asyncio.Task[None] | None = None
    _session: aiohttp.ClientSession | None = None
    _options: dict[str, Any] = field(default_factory=dict)  # the same for every request

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: Mapping[str, Any] | None = None,
        content_type: str = JSON,
        timeout_s: float,
    ) -> tuple[int, Mapping[str, Any]]:
        """Status and JSON body; status 0 when there was no complete answer within `timeout_s`, or one that says it went
        well without an object: a proxy's, which proves nothing. Of a 429 the body says when to come back, as a Status
        does, also where only a header did."""
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._send(method, path, query, body, content_type, _NO_LIMIT)
                data = await response.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            return 0, {"message": str(error) or type(error).__name__}
        found = _mapping(data)
        if 200 <= response.status < 300 and not isinstance(found.get("kind"), str):
            return 0, {"message": f"answered {response.status} without a Kubernetes object"}
        if response.status == TOO_MANY_REQUESTS and "details" not in found:
            found = {**found, "details": {"retryAfterSeconds": _seconds(response.headers.get("Retry-After", ""))}}
        return response.status, found

    async def stream(self, path: str, query: Query, *, idle_s: float) -> AsyncIterator[Mapping[str, Any]]:
        """Watch events as they come. WatchEndedError after the server closed, or said nothing for `idle_s`."""
        timeout = aiohttp.ClientTimeout(total=None, sock_read=idle_s)
        try:
            response = await self._send("GET", path, query, None, JSON, timeout)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise WatchEndedError(str(error)) from error
        try:
            if response.status != 200:
                yield {"type": "ERROR", "object": {"code": response.status, **_mapping(await response.read())}}
                return
            while line := await response.content.readline():
                yield _mapping(line)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise WatchEndedError(str(error) or type(error).__name__) from error
        finally:
            response.close()
        raise WatchEndedError("the server closed the watch")

    async def close(self) -> None:
        if self._refresher is not None:
            self._refresher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._refresher
        await self.api.close()  # type: ignore[no-untyped-call]

    async def _send(
        self,
        method: str,
        path: str,
        query: Query,
        body: Mapping[str, Any] | None,
        content_type: str,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - handed on to the client library
    ) -> aiohttp.ClientResponse:
        """By the client's session (its TLS, proxy and connections), past its wrapper, which encodes JSON slowly."""
        session = self._session or self._open()
        headers = {"Accept": JSON, "Content-Type": content_type, **await self._auth()}
        url = f"{self.api.configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
        data = None if body is None else _encoder.encode(body)
        return await session.request(method, url, headers=headers, data=data, timeout=timeout, **self._options)

    def _open(self) -> aiohttp.ClientSession:
        """The session as the client makes it; the client closes it."""
        rest, configuration = self.api.rest_client, self.api.configuration
        if rest.pool_manager is None:
            rest.pool_manager = rest._create_pool_manager()  # noqa: SLF001 - meant to be overridden, so it stays
        self._session = rest.pool_manager
        wanted = {
            "server_hostname": configuration.tls_server_name,
            "proxy": rest.proxy,
            "proxy_headers": rest.proxy_headers,
        }
        self._options = {name: value for name, value in wanted.items() if value}
        return self._session

    async def _auth(self) -> dict[str, str]:
        found = (await self.api.configuration.auth_settings()).get("BearerToken")
        return {str(found["key"]): str(found["value"])} if found and found.get("value") else {}


def _seconds(header: str) -> int:
    """Of a `Retry-After`; 0 for dates and anything else, which API servers do not send."""
    return int(header) if header.isascii() and header.isdigit() and len(header) <= RETRY_AFTER_DIGITS_MAX else 0


def _mapping(data: bytes) -> Mapping[str, Any]:
    """A JSON object, or an empty mapping for anything else: what servers send is untrusted."""
    try:
        value = _decoder.decode(data)
    except msgspec.DecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _expect_files(kubeconfig: str) -> None:
    """The loader would only miss what is written in it."""
    if kubeconfig and not any(Path(part).expanduser().is_file() for part in kubeconfig.split(os.pathsep)):
        raise KubeConfigError(f"{kubeconfig}: no such file")


async def connect(*, url: str = "", token: str = "", kubeconfig: str = "", context: str = "") -> KubeTransport:
    """A transport to `url` (plain), or by kubeconfig and context, or from inside a cluster when neither is given."""
    configuration = Configuration()
    configuration.connection_pool_maxsize = CONNECTIONS_MAX
    configuration.retries = None
    # Proxies of the environment are looked up once, below: the session would do so in a thread for every request.
    configuration.client_session_kwargs = {"read_bufsize": LINE_BYTES_MAX, "trust_env": False}
    loader = None
    _expect_files(kubeconfig)
    try:
        if url:
            configuration.host = url.rstrip("/")
            if token:
                configuration.api_key["BearerToken"] = f"Bearer {token}"
        elif kubeconfig or context:
            loader = await config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=kubeconfig or None, context=context or None, client_configuration=configuration
            )
        else:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError) as error:
        raise KubeConfigError(str(error)) from error
    except Exception as error:  # of its parsers, and of code that takes whatever they read for what it should be
        raise KubeConfigError(f"{kubeconfig or 'kubeconfig'} is no kubeconfig file: {error}") from error
    configuration.proxy = configuration.proxy or _proxy_of(configuration.host)
    transport = KubeTransport(ApiClient(configuration))
    if loader is not None:  # exec plug-ins' tokens are not renewed by the client itself
        refresh = config.refresh_token(loader, configuration, TOKEN_REFRESH_S)  # type: ignore[no-untyped-call]
        transport._refresher = asyncio.create_task(refresh)  # noqa: SLF001 - its own module
    return transport


def _proxy_of(url: str) -> str | None:
    """The proxy that the environment names for this server, if any."""
    parts = urlsplit(url)
    if not parts.hostname or proxy_bypass(parts.hostname):
        return None
    return getproxies().get(parts.scheme)
