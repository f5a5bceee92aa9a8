"""`Client`: the API for synchronous callers, sent by httpx, sent again when the server was away.

What a method sends and how its answer is read is in `calls`; only sending, pausing and connecting happen here.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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


class Client:
    """A fleet's API for synchronous callers. Use as a context manager, or `close()` it. One thread at a time.

    `server` may be several addresses, in a list or with commas: when one is away the next is asked.
    """

    def __init__(
        self,
        server: str | Sequence[str],
        token: str = "",
        *,
        retry: RetryRule = RetryRule(),  # noqa: B008 - frozen
        transport: httpx.BaseTransport | None = None,
        pause: Callable[[float], None] = time.sleep,
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._servers = Addresses(server)
        self._retry, self._pause, self._draw, self._clock = retry, pause, draw, clock
        self._http = httpx.Client(
            headers=auth_headers(token),
            timeout=call_timeout(),
            transport=transport,
            trust_env=False,
        )

    @property
    def server(self) -> str:
        """The address that is asked now."""
        return self._servers.current

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # --- PodGroups ---

    def submit(self, manifest: Mapping[str, Any], *, request_id: str = "") -> Submitted:
        """Hand in one manifest of any dialect; it is durable when this returns. Give your own `request_id` to make
        repeats of a whole program harmless too."""
        return self.send(calls.submit(manifest, request_id or new_request_id()))

    def submit_many(self, manifests: Sequence[Mapping[str, Any]], *, request_id: str = "") -> list[BulkItem]:
        """Hand in many manifests, each judged by itself; what was accepted is durable when this returns. Answers are in
        the order of `manifests`."""
        sent = [self.send(call) for call in calls.submit_many(manifests, request_id or new_request_id())]
        return [item for answer in sent for item in answer.items]

    def list_groups(
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
        """One page: of the groups in memory, or of those whose time there is over, the newest first."""
        return self.send(
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

    def get_group(self, ref: str, *, namespace: str = "") -> GroupView:
        """By uid, or by name within `namespace`."""
        return self.send(calls.get_group(ref, namespace))

    def explain(self, ref: str, *, namespace: str = "") -> Explanation:
        return self.send(calls.explain_group(ref, namespace))

    def history(self, ref: str, *, namespace: str = "") -> DecisionList:
        return self.send(calls.history_of_group(ref, namespace))

    def act_on_group(self, ref: str, act: str, reason: str = "", *, namespace: str = "") -> Landed:
        """`act` is cancel, suspend or resume. The intent is durable when this returns; the pods stop afterwards."""
        return self.send(calls.act_on_group(ref, namespace, act, reason, new_request_id()))

    def cancel(self, ref: str, reason: str = "", *, namespace: str = "") -> Landed:
        return self.act_on_group(ref, "cancel", reason, namespace=namespace)

    def resize(self, ref: str, count: int, *, role: str = "", namespace: str = "") -> Landed:
        """Give an elastic group so many pods of a role where it runs; `role` may be left out where there is one. The
        wish is durable when this returns; the pods come or go afterwards."""
        return self.send(calls.resize_group(ref, namespace, role, count, new_request_id()))

    # --- clusters, queues, the log ---

    def list_clusters(self) -> ClusterList:
        return self.send(calls.list_clusters())

    def get_cluster(self, name: str) -> ClusterView:
        return self.send(calls.get_cluster(name))

    def join_cluster(
        self,
        name: str,
        *,
        lease_class: str = "default",
        labels: Mapping[str, str] | None = None,
        accept_unguarded: bool = False,
    ) -> Landed:
        """Make the cluster part of the fleet, or change how it takes part."""
        wish = {"lease_class": lease_class, "labels": dict(labels or {}), "accept_unguarded": accept_unguarded}
        return self.send(calls.join_cluster(name, wish, new_request_id()))

    def act_on_cluster(self, name: str, act: str, reason: str = "") -> Landed:
        """`act` is cordon, uncordon, drain, remove or confirm-dead (which needs a reason)."""
        return self.send(calls.act_on_cluster(name, act, reason, new_request_id()))

    def list_queues(self) -> QueueList:
        return self.send(calls.list_queues())

    def get_queue(self, name: str) -> QueueView:
        return self.send(calls.get_queue(name))

    def apply_queue(self, name: str, body: Mapping[str, Any]) -> Landed:
        return self.send(calls.apply_queue(name, body, new_request_id()))

    def list_decisions(
        self, *, since: int = 0, uid: str = "", cluster: str = "", limit: int = 0, before: int | None = None
    ) -> DecisionList:
        """Oldest first: the first ones above `since`, or the last ones below `before` (`calls.END`: the newest)."""
        return self.send(calls.list_decisions(since=since, uid=uid, cluster=cluster, limit=limit, before=before))

    def readiness(self) -> dict[str, Any]:
        return self.send(calls.readiness())

    def watch(self, *, since: int = 0, uid: str = "", cluster: str = "") -> Iterator[Decision]:
        """Decisions above `since` as they land, for ever; reconnects and resumes where it was. UnavailableError when
        the server stays away for all attempts of the retry rule."""
        call, stream, attempt = calls.watch(since=since, uid=uid, cluster=cluster), DecisionStream(), 0
        while True:
            try:
                for decision in self._watch_once(call, stream):
                    attempt = 0
                    self._servers.answered()
                    yield decision
                error: MusterError = UnavailableError("WatchEnded", f"{self.server} ended the watch")
            except httpx.ReadTimeout:
                continue  # quiet: connect anew
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
            self._pause(pause_s)

    def _watch_once(self, call: Call[None], stream: DecisionStream) -> Iterator[Decision]:
        stream.connected()
        headers, timeout = watch_headers(stream), watch_timeout()
        with self._http.stream(
            call.method, self.server + call.path, params=call.query, headers=headers, timeout=timeout
        ) as answer:
            if answer.status_code != httpx.codes.OK:
                read_answer(call, answer.status_code, answer.headers, answer.read())
            for line in answer.iter_lines():
                decision = stream.feed(line)
                if decision is not None:
                    yield decision

    # --- sending ---

    def send(self, call: Call[T]) -> T:
        """The call's result, after as many attempts as the retry rule allows."""
        attempt, began_s = 0, self._clock()
        while True:
            try:
                return self._send_once(call)
            except UnavailableError as error:
                if self._servers.turn(error):
                    continue
                attempt += 1
                pause_s = self._retry.pause_s(attempt, error, draw=self._draw(), spent_s=self._clock() - began_s)
                if pause_s is None:
                    raise
            self._pause(pause_s)

    def _send_once(self, call: Call[T]) -> T:
        try:
            answer = self._http.request(
                call.method, self.server + call.path, params=call.query, content=call.body, headers=call.headers
            )
        except httpx.TransportError as error:
            raise unavailable(self.server, error) from error
        except httpx.InvalidURL as error:
            raise not_an_address(self.server, error) from error
        self._servers.answered()
        return read_answer(call, answer.status_code, answer.headers, answer.content)
