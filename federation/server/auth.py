"""What callers may do: the one authorisation hook. Denied by default.

On loopback the token file (`tokens`) is the only credential; OIDC replaces where principals come from, without touching
the routes.
"""

from __future__ import annotations

from typing import Final

from federation.server.problems import ProblemError
from federation.server.tokens import Principal, Verb

CREDENTIAL: Final = "Authorization"  # the field to change where the caller may not do it at all
ASK: Final = "ask an operator for it, or use another token"


def authorise(principal: Principal, verb: Verb, queue: str | None = None) -> None:
    """The one hook: returns if `principal` may, raises a 403 problem that says what is missing otherwise."""
    if verb not in principal.verbs:
        raise ProblemError(403, "Forbidden", f"{principal.name} lacks the verb {verb.value}", CREDENTIAL, ASK)
    if queue is not None and "*" not in principal.queues and queue not in principal.queues:
        detail = f"{principal.name} may not use queue {queue!r}, only {', '.join(principal.queues)}"
        raise ProblemError(403, "ForbiddenQueue", detail, "queue", "submit to one of your queues")


def authorise_agent(principal: Principal, cluster: str) -> None:
    """An agent speaks for its own cluster only (S13)."""
    if principal.cluster != cluster:
        detail = f"{principal.name} does not speak for cluster {cluster!r}"
        raise ProblemError(403, "Forbidden", detail, "cluster", "use the credential of that cluster's agent")
