"""Names on the bus and of the agents' HTTPS routes, and which role may use which (DESIGN §10).

Nothing here talks to a bus; `bus` does.
"""

from __future__ import annotations

from typing import Final

from federation.protocol.messages import AgentAsk, Claims, DesiredAsk, Renewal, SpecAsk, Verdict

PREFIX: Final = "muster.v1"
JOURNAL_HINT: Final = f"{PREFIX}.journal"  # server to server
QUEUE_GROUP: Final = "muster-servers"  # any replica answers desired, spec and lease
INBOX_SERVER: Final = "_INBOX_muster-server"

ASK_KINDS: Final = {Renewal: "lease", DesiredAsk: "desired", SpecAsk: "spec", Verdict: "verdict", Claims: "verdict"}
ANY_REPLICA: Final = ("desired", "spec", "lease")


def inbox(cluster: str) -> str:
    """The reply prefix private to one agent: whoever may read `_INBOX.>` reads everybody's answers."""
    return f"_INBOX.{cluster}"


def ask_subject(ask: AgentAsk) -> str:
    return f"{PREFIX}.{ask.cluster}.{ASK_KINDS[type(ask)]}"


def ask_path(ask: AgentAsk) -> str:
    """The HTTPS route that takes the same message."""
    return f"/v1/agents/{ask.cluster}/{ASK_KINDS[type(ask)]}"


def report(cluster: str) -> str:
    return f"{PREFIX}.{cluster}.report"


def doorbell(cluster: str) -> str:
    return f"{PREFIX}.{cluster}.doorbell"


def cluster_of(subject: str) -> str:
    """The cluster a subject belongs to: the broker lets only that cluster's credential publish on it."""
    return subject.split(".")[2]


def agent_permissions(cluster: str) -> dict[str, list[str]]:
    """Allow-lists of one agent's credential (allow-lists only: deny rules were bypassable in old servers)."""
    mine = f"{PREFIX}.{cluster}"
    return {
        "publish": [f"{mine}.{kind}" for kind in ("report", "event", "desired", "spec", "lease", "verdict")],
        "subscribe": [f"{mine}.doorbell", f"{inbox(cluster)}.>"],
    }


def server_permissions() -> dict[str, list[str]]:
    """Allow-lists of the federation servers' credential. Replies go to agents' private inboxes, whose cluster is a
    token of its own: a wildcard stands for whole tokens only."""
    asked = [f"{PREFIX}.*.{kind}" for kind in ("report", "event", "desired", "spec", "lease", "verdict")]
    return {
        "publish": [f"{PREFIX}.*.doorbell", JOURNAL_HINT, "_INBOX.*.>"],
        "subscribe": [*asked, *(f"{subject} {QUEUE_GROUP}" for subject in asked), JOURNAL_HINT, f"{INBOX_SERVER}.>"],
    }
