"""What goes into an agent's core (`reconcile.Reconciler`) and what comes out of it.

The agent process and the deterministic world drive the very same `Reconciler.handle(event, now_s)`. Kubernetes objects
are plain JSON dicts here, as the API server sent them: treat them as untrusted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Any

from federation.protocol.messages import AgentAsk, GuardAnswer, GuardAsk, Report, ServerAnswer, ToAgent

KubeObject = Mapping[str, Any]  # JSON edge


@unique
class Kind(StrEnum):
    """What the agent lists and watches; the value is the resource's plural."""

    NODES = "nodes"
    PODS = "pods"  # all pods on nodes count for capacity; ours are told by their labels
    CONFIGMAPS = "configmaps"  # ours only: label muster.io/kind
    JOBS = "jobs"  # ours only


@unique
class WriteClass(StrEnum):
    """`STARTS` creates, binds, ungates or resumes: compared with the deadline before sending, and its time-outs never
    exceed what remains of it. `ALWAYS`: deletes, ledger writes, finalizers."""

    STARTS = "starts"
    ALWAYS = "always"
    READ = "read"


# --- events ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listed:
    """A complete list of one kind (after start or a 410): what is not in it is gone."""

    kind: Kind
    items: tuple[KubeObject, ...]


@dataclass(frozen=True, slots=True)
class Changed:
    """One watch event; `deleted` objects carry their last state."""

    kind: Kind
    item: KubeObject
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class KubeAnswered:
    """Answer to the `CallKube` with this id; `status` 0: unknown (time-out or broken connection after sending)."""

    call_id: int
    status: int
    body: KubeObject


@dataclass(frozen=True, slots=True)
class ServerAnswered:
    """From either path; may come twice, late, or never."""

    answer: ServerAnswer


@dataclass(frozen=True, slots=True)
class Told:
    message: ToAgent


@dataclass(frozen=True, slots=True)
class GuardAsked:
    """Answered by at most one `AnswerGuard`; no answer while the agent has neither deadline nor fenced."""

    ticket: int
    ask: GuardAsk


@dataclass(frozen=True, slots=True)
class Tick:
    """Time went by; due at the latest at `Reconciler.wake_at_s`."""


@dataclass(frozen=True, slots=True)
class Started:
    """First event of all."""


Shown = Changed | KubeAnswered
"""What the API server says. None of it grants a right to start, so what came together may be taken in together."""

AgentEvent = Listed | Changed | KubeAnswered | ServerAnswered | Told | GuardAsked | Tick | Started


# --- effects ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CallKube:
    """One request to the cluster's API server; never repeated by the shell. Past `timeout_s` it counts as unknown, and
    the server is told the same bound (`timeout=`)."""

    call_id: int
    method: str
    path: str
    body: KubeObject | None
    timeout_s: float
    write_class: WriteClass
    query: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class AskServers:
    """Send on both paths (NATS request and HTTPS to any replica); verdicts are answered by the leader only."""

    ask: AgentAsk


@dataclass(frozen=True, slots=True)
class SendReport:
    report: Report


@dataclass(frozen=True, slots=True)
class AnswerGuard:
    ticket: int
    answer: GuardAnswer


@dataclass(frozen=True, slots=True)
class Note:
    event: str
    fields: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Stop:
    """This process must end (wrong cluster behind this name, or an invariant broke)."""

    why: str


AgentEffect = CallKube | AskServers | SendReport | AnswerGuard | Note | Stop
