"""What can go wrong when a server is asked: one tree, facts as attributes. Standard library only."""

from __future__ import annotations


class MusterError(Exception):
    """Base of all. `reason` is the server's stable code, `field` names where, `remedy` says what to do."""

    def __init__(self, reason: str, detail: str, *, status: int = 0, field: str = "", remedy: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.status = status
        self.field = field
        self.remedy = remedy


class InvalidError(MusterError):
    """400, 413, 422: the request itself is not acceptable; sending it again will not help."""


class ForbiddenError(MusterError):
    """401, 403: the caller is unknown or may not do this."""


class NotFoundError(MusterError):
    """404: there is no such object."""


class ConflictError(MusterError):
    """409: it contradicts what is there (name taken, group finished, another body under the same request id)."""


class UnavailableError(MusterError):
    """429, 502, 503, 504 or no answer at all. `outcome_known` is False when the request may have taken effect: the same
    request id makes sending it again harmless."""

    def __init__(
        self,
        reason: str,
        detail: str,
        *,
        status: int = 0,
        field: str = "",
        remedy: str = "",
        retry_after_s: float | None = None,
        outcome_known: bool = True,
    ) -> None:
        super().__init__(reason, detail, status=status, field=field, remedy=remedy)
        self.retry_after_s = retry_after_s
        self.outcome_known = outcome_known


class ProtocolError(MusterError):
    """The answer is not what the API promises: another service, or a server of another version."""
