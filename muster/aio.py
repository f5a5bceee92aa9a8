"""`AsyncClient`: the twin of `client.Client` for asyncio; the same methods, the same calls, the same retry rule."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from muster import calls
from muster.calls import Call, read_answer
from muster.connection import (
    Addresses,
    auth_headers,
    call_timeout,
    new_request_id,
    not_an_address,
    unavailable,
    watch_headers,
    watch_timeout,
)
from muster.errors import MusterError, UnavailableError
from muster.results import (
    BulkItem,
    ClusterList,
    ClusterView,
    Decision,
    DecisionList,
    Explanation,
    GroupList,
    GroupView,
    Landed,
    QueueList,
    QueueView,
    Submitted,
)
from muster.retry import RetryRule
from muster.stream import DecisionStream

T = TypeVar("T")


class AsyncClient:
    """`Client` for asyncio; each method does what its twin there says. `async with` it, or `await aclose()`."""

    def __init__(
        self,
        server: str | Sequence[str],
        token: str = "",
        *,
        retry: RetryRule = RetryRule(),  # noqa: B008 - frozen
        transport: httpx.AsyncBaseTransport | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._servers = Addresses(server)
        self._retry, self._pause, self._draw, self._clock = retry, pause, draw, clock
        self._http = httpx.AsyncClient(
            headers=auth_headers(token),
            timeout=call_timeout(),
            transport=transport,
            trust_env=False,
        )

    @property
    def server(self) -> str:
        return self._servers.current

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    # --- PodGroups ---

    async def submit(self, manifest: Mapping[str, Any], *, request_id: str = "") -> Submitted:
        return await self.send(calls.submit(manifest, request_id or new_request_id()))

    async def submit_many(self, manifests: Sequence[Mapping[str, Any]], *, request_id: str = "") -> list[BulkItem]:
        sent = [await self.send(call) for call in calls.submit_many(manifests, request_id or new_request_id())]
        return [item for answer in sent for item in answer.items]

    async def list_groups(
        self,
        *,
        namespace: str = "",
        queue: str = "",
        phase: str = "",
        cluster: str = "",
        labels: Mapping[str, str] | None = None,
        archived: bool = False,
        limit: int = 0,
        continue_: str = "",
    ) -> GroupList:
        return await self.send(
            calls.list_groups(
                namespace=namespace,
                queue=queue,
                phase=phase,
                cluster=cluster,
                labels=labels,
                archived=archived,
                limit=limit,
                continue_=continue_,
            )
        )

    async def get_group(self, ref: str, *, namespace: str = "") -> GroupView:
        return await self.send(calls.get_group(ref, namespace))

    async def explain(self, ref: str, *, namespace: str = "") -> Explanation:
        return await self.send(calls.explain_group(ref, namespace))

    async def history(self, ref: str, *, namespace: str = "") -> DecisionList:
        return await self.send(calls.history_of_group(ref, namespace))

    async def act_on_group(self, ref: str, act: str, reason: str = "", *, namespace: str = "") -> Landed:
        return await self.send(calls.act_on_group(ref, namespace, act, reason, new_request_id()))

    async def cancel(self, ref: str, reason: str = "", *, namespace: str = "") -> Landed:
        return await self.act_on_group(ref, "cancel", reason, namespace=namespace)

    async def resize(self, ref: str, count: int, *, role: str = "", namespace: str = "") -> Landed:
        return await self.send(calls.resize_group(ref, namespace, role, count, new_request_id()))

    # --- clusters, queues, the log ---

    async def list_clusters(self) -> ClusterList:
        return await self.send(calls.list_clusters())

    async def get_cluster(self, name: str) -> ClusterView:
        return await self.send(calls.get_cluster(name))

    async def join_cluster(
        self,
        name: str,
        *,
        lease_class: str = "default",
        labels: Mapping[str, str] | None = None,
        accept_unguarded: bool = False,
    ) -> Landed:
        wish = {"lease_class": lease_class, "labels": dict(labels or {}), "accept_unguarded": accept_unguarded}
        return await self.send(calls.join_cluster(name, wish, new_request_id()))

    async def act_on_cluster(self, name: str, act: str, reason: str = "") -> Landed:
        return await self.send(calls.act_on_cluster(name, act, reason, new_request_id()))

    async def list_queues(self) -> QueueList:
        return await self.send(calls.list_queues())

    async def get_queue(self, name: str) -> QueueView:
        return await self.send(calls.get_queue(name))

    async def apply_queue(self, name: str, body: Mapping[str, Any]) -> Landed:
        return await self.send(calls.apply_queue(name, body, new_request_id()))

    async def list_decisions(
        self, *, since: int = 0, uid: str = "", cluster: str = "", limit: int = 0, before: int | None = None
    ) -> DecisionList:
        return await self.send(calls.list_decisions(since=since, uid=uid, cluster=cluster, limit=limit, before=before))

    async def readiness(self) -> dict[str, Any]:
        return await self.send(calls.readiness())

    async def watch(self, *, since: int = 0, uid: str = "", cluster: str = "") -> AsyncIterator[Decision]:
        call, stream, attempt = calls.watch(since=since, uid=uid, cluster=cluster), DecisionStream(), 0
        while True:
            try:
                async for decision in self._watch_once(call, stream):
                    attempt = 0
                    self._servers.answered()
                    yield decision
                error: MusterError = UnavailableError("WatchEnded", f"{self.server} ended the watch")
            except httpx.ReadTimeout:
                continue
            except httpx.TransportError as cause:
                error = unavailable(self.server, cause)
            except httpx.InvalidURL as cause:
                error = not_an_address(self.server, cause)
            except MusterError as refusal:
                error = refusal
            if isinstance(error, UnavailableError) and self._servers.turn(error):
                continue
            attempt += 1
            pause_s = self._retry.pause_s(attempt, error, draw=self._draw())
            if pause_s is None:
                raise error
            await self._pause(pause_s)

    async def _watch_once(self, call: Call[None], stream: DecisionStream) -> AsyncIterator[Decision]:
        stream.connected()
        headers, timeout = watch_headers(stream), watch_timeout()
        async with self._http.stream(
            call.method, self.server + call.path, params=call.query, headers=headers, timeout=timeout
        ) as answer:
            if answer.status_code != httpx.codes.OK:
                read_answer(call, answer.status_code, answer.headers, await answer.aread())
            async for line in answer.aiter_lines():
                decision = stream.feed(line)
                if decision is not None:
                    yield decision

    # --- sending ---

    async def send(self, call: Call[T]) -> T:
        attempt, began_s = 0, self._clock()
        while True:
            try:
                return await self._send_once(call)
            except UnavailableError as error:
                if self._servers.turn(error):
                    continue
                attempt += 1
                pause_s = self._retry.pause_s(attempt, error, draw=self._draw(), spent_s=self._clock() - began_s)
                if pause_s is None:
                    raise
            await self._pause(pause_s)

    async def _send_once(self, call: Call[T]) -> T:
        try:
            answer = await self._http.request(
                call.method, self.server + call.path, params=call.query, content=call.body, headers=call.headers
            )
        except httpx.TransportError as error:
            raise unavailable(self.server, error) from error
        except httpx.InvalidURL as error:
            raise not_an_address(self.server, error) from error
        self._servers.answered()
        return read_answer(call, answer.status_code, answer.headers, answer.content)
