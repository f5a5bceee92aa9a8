"""Which of several agent processes acts: a Lease in the member cluster, held by renewing it.

Only the holder acts, and only before its own deadline, which counts from before each renewal was sent. A process that
wants it waits until it has itself seen no renewal for longer than any holder's deadline. Who may start what under the
*cluster's* lease is `fence`'s.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from cluster_agents.core.calls import REPLICA, Outcome, Request, Step, outcome
from cluster_agents.core.config import LEASE_NAME, LEDGER_NAME, AgentConfig
from cluster_agents.core.events import KubeObject, WriteClass
from cluster_agents.core.ledger import NOTHING_LANDED, Landed
from cluster_agents.core.objects import mapping, text
from federation.protocol.lease import CLOCK_RATE_FACTOR

RENEWALS_PER_LEASE: Final = 4  # three may fail before the deadline
TRIES_PER_RENEWAL: Final = 4  # where writes fail at once and reads do not, there would be thousands a second
RENEWALS: Final = "muster.io/renewals"  # makes every renewal a change: the server drops writes that change nothing
LANDED: Final = "muster.io/landed"  # repeats what the ledger says, for where somebody deletes that
POSITION_CHARS_MAX: Final = 20


class _Role(Enum):
    WATCHING = auto()
    HOLDING = auto()


class LocalLease:
    """This process's view of the Lease. `boot` grows with every change of holder."""

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self._length_s = config.timings.local_lease_s
        self._period_s = self._length_s / RENEWALS_PER_LEASE
        self._role = _Role.WATCHING
        self._deadline_s: float | None = None
        self._lease: KubeObject = {}
        self._version = ""
        self._seen_at_s = 0.0  # when this version was first seen here
        self._absent_since_s: float | None = None
        self._fresh = False  # no ledger either: nobody ever acted in this cluster
        self._renewals = 0
        self._asked_at_s: float | None = None
        self._patient = False  # the API server was seen to take its time
        self._due_s = 0.0
        self._write_from_s = 0.0
        self._asking_namespace = False
        self.boot = 0
        self.landed = NOTHING_LANDED  # as the Lease has it, or will

    # --- what it says -------------------------------------------------------------------------------------------------

    @property
    def holding(self) -> bool:
        """Nobody else is known to hold it. Acting needs `sure` as well."""
        return self._role is _Role.HOLDING

    @property
    def deadline_s(self) -> float | None:
        return self._deadline_s

    def sure(self, now_s: float) -> bool:
        """Nobody else can hold it now."""
        return self.holding and self._deadline_s is not None and now_s < self._deadline_s

    def note(self, landed: Landed) -> None:
        """The ledger has come so far: to be said with the next renewal."""
        self.landed = max(self.landed, landed)

    # --- asking -------------------------------------------------------------------------------------------------------

    @property
    def call_timeout_s(self) -> float:
        """Whoever does not answer is asked again soon, in case it was the connection; then for as long as every renewal
        may take before the one before it is worth nothing."""
        return self._length_s / 2 if self._patient else self._period_s

    def wake_at_s(self) -> float:
        return self._due_s if self._asked_at_s is None else float("inf")

    def next_request(self, now_s: float) -> Request | None:
        """The read or write that is due; one at a time."""
        if self._asked_at_s is not None or now_s < self._due_s:
            return None
        self._asked_at_s = now_s
        if self._asking_namespace:
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self._config.namespace}}
            return Request(REPLICA, Step.NAMESPACE, "", "POST", "/api/v1/namespaces", body)
        if self.holding and self._version:
            return self._write(transitions=self.boot)
        if self._absent_since_s is not None:
            return self._create_or_probe(self._absent_since_s, now_s)
        if self._abandoned(now_s):
            return self._write(transitions=self._transitions() + 1)
        return Request(REPLICA, Step.LEASE_READ, "", "GET", self._path(LEASE_NAME), write_class=WriteClass.READ)

    def _create_or_probe(self, absent_since_s: float, now_s: float) -> Request:
        """Somebody may have deleted the Lease of a holder that is still sure of it: wait it out, unless there is no
        ledger, which every holder writes before it does anything else."""
        if self._fresh or now_s - absent_since_s > self._length_s * CLOCK_RATE_FACTOR:
            return self._write(transitions=self.boot + 1)
        if now_s == absent_since_s:
            path = f"/api/v1/namespaces/{self._config.namespace}/configmaps/{LEDGER_NAME}"
            return Request(REPLICA, Step.LEDGER_READ, "", "GET", path, write_class=WriteClass.READ)
        return Request(REPLICA, Step.LEASE_READ, "", "GET", self._path(LEASE_NAME), write_class=WriteClass.READ)

    def _abandoned(self, now_s: float) -> bool:
        """The holder's renewals stood still for longer than its deadline can last by any clock."""
        return bool(self._version) and now_s - self._seen_at_s > self._length_s * CLOCK_RATE_FACTOR

    def _transitions(self) -> int:
        value = mapping(self._lease, "spec").get("leaseTransitions")
        return value if isinstance(value, int) and value > 0 else 0

    def _path(self, name: str = "") -> str:
        base = f"/apis/coordination.k8s.io/v1/namespaces/{self._config.namespace}/leases"
        return f"{base}/{name}" if name else base

    def _write(self, *, transitions: int) -> Request:
        self._renewals += 1
        metadata: dict[str, object] = {
            "name": LEASE_NAME,
            "namespace": self._config.namespace,
            "annotations": {
                RENEWALS: f"{self._config.boot_nonce}/{self._renewals}",
                LANDED: f"{self.landed.lineage}/{self.landed.position}",
            },
        }
        if self._version:
            metadata["resourceVersion"] = self._version
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": self._config.boot_nonce,
                "leaseDurationSeconds": max(1, round(self._length_s)),
                "leaseTransitions": transitions,
            },
        }
        if self._version:
            return Request(REPLICA, Step.LEASE_WRITE, "", "PUT", self._path(LEASE_NAME), body)
        return Request(REPLICA, Step.LEASE_WRITE, "", "POST", self._path(), body)

    # --- answers ------------------------------------------------------------------------------------------------------

    def answered(self, step: Step, status: int, body: KubeObject, now_s: float) -> None:
        """Take the answer to the one open request in."""
        asked_at_s, self._asked_at_s = self._asked_at_s, None
        if asked_at_s is None:
            return
        self._due_s = max(now_s, asked_at_s + self._period_s)
        if now_s - asked_at_s >= self._period_s:
            self._patient = True
        elif outcome(status) is not Outcome.UNKNOWN:
            self._patient = False
        match step:
            case Step.NAMESPACE:
                self._asking_namespace = False
                self._due_s = now_s
            case Step.LEDGER_READ:
                self._fresh = outcome(status) is Outcome.MISSING
                self._due_s = now_s if self._fresh else self._due_s
            case Step.LEASE_WRITE:
                self._was_written(outcome(status), body, asked_at_s, now_s)
            case _:
                self._was_read(outcome(status), body, now_s)

    def _was_written(self, result: Outcome, body: KubeObject, asked_at_s: float, now_s: float) -> None:
        self._write_from_s = asked_at_s + self._period_s / TRIES_PER_RENEWAL
        match result:
            case Outcome.DONE if text(body, "metadata", "resourceVersion"):
                self._role = _Role.HOLDING
                self._deadline_s = asked_at_s + self._length_s
                self._take(body, now_s)
                self.boot = self._transitions()
            case Outcome.MISSING if not self._version:
                self._asking_namespace = True
                self._due_s = now_s
            case Outcome.CONFLICT | Outcome.MISSING | Outcome.UNKNOWN:
                # Unknown: the read shows whether it was ours. Until then no renewal can succeed with the old version.
                self._version, self._absent_since_s, self._fresh = "", None, False
                self._due_s = now_s
            case Outcome.BUSY | Outcome.THROTTLED | Outcome.REFUSED | Outcome.DONE:
                pass  # `DONE` without the Lease is a proxy's word, which renews nothing

    def _was_read(self, result: Outcome, body: KubeObject, now_s: float) -> None:
        if result is Outcome.MISSING:
            self._version = ""
            if self.holding and not self.sure(now_s):
                self._role = _Role.WATCHING
            if self._absent_since_s is None:
                self._absent_since_s = now_s
                self._due_s = now_s
            return
        if result is not Outcome.DONE:
            return
        self._absent_since_s, self._fresh = None, False
        self._take(body, now_s)
        mine = text(body, "spec", "holderIdentity") == self._config.boot_nonce
        if mine:
            self._role, self.boot = _Role.HOLDING, self._transitions()
            self._due_s = max(now_s, self._write_from_s)  # renew at once: the read itself gives no deadline
        elif self.holding:
            self._role, self._deadline_s = _Role.WATCHING, None

    def _take(self, body: KubeObject, now_s: float) -> None:
        """Note the Lease as it stands; only versions that differ start the wait anew."""
        version = text(body, "metadata", "resourceVersion")
        if version != self._version:
            self._seen_at_s = now_s
        self._lease, self._version = body, version
        self.note(_landed(text(body, "metadata", "annotations", LANDED)))


def _landed(written: str) -> Landed:
    lineage, _, position = written.rpartition("/")
    is_position = position.isascii() and position.isdigit() and len(position) <= POSITION_CHARS_MAX
    return Landed(lineage, int(position)) if is_position else NOTHING_LANDED
