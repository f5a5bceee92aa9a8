"""The errors of this package. Refusals that callers expect are values (`Outcome`), not errors."""

from __future__ import annotations


class StoreError(Exception):
    """Root of everything `storage` raises on purpose."""


class UnavailableError(StoreError):
    """The store could not answer. For a write this means that its outcome is unknown."""

    def __init__(self, operation: str, name: str, why: str) -> None:
        super().__init__(f"the store could not answer {operation} of {name!r}: {why}")
        self.operation = operation
        self.name = name
        self.why = why


class ContendedError(StoreError):
    """A conditional write lost its race too often."""

    def __init__(self, name: str, attempts: int) -> None:
        super().__init__(f"{name!r} was changed by others during each of {attempts} attempts")
        self.name = name
        self.attempts = attempts


class CorruptError(StoreError):
    """Stored bytes are not what a correct writer left there. Nobody may skip them: replicas would part."""

    def __init__(self, name: str, why: str, seq: int | None = None) -> None:
        super().__init__(f"{name!r} is corrupt: {why}")
        self.name = name
        self.why = why
        self.seq = seq


class UnsupportedFormatError(StoreError):
    """The bytes are of a later version than this program reads."""

    def __init__(self, name: str, found: str, known: str) -> None:
        super().__init__(f"{name!r} has format {found}; this version reads {known}: upgrade it")
        self.name = name
        self.found = found
        self.known = known


class StoreMovedError(StoreError):
    """The journal was moved to another store and goes on there; what is left here may never be written again."""

    def __init__(self, moved_to: str) -> None:
        super().__init__(f"this store was moved to {moved_to}: start the servers on that one")
        self.moved_to = moved_to


class StoreRefusedError(StoreError):
    """The self-test showed that the store does not keep the promises the journal needs."""

    def __init__(self, check: str, why: str) -> None:
        super().__init__(
            f"the store is unfit for use, self-test {check!r} failed: {why}. Muster needs creates and replaces that "
            "hold to their conditions (on S3: If-None-Match and If-Match): use another store or a later server"
        )
        self.check = check
        self.why = why


class StoreLockedError(StoreError):
    """Another process has the store open, and this backend admits one."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{path} is open in another process (a running muster-server?); this backend admits one: "
            "stop that process, or ask it over HTTP"
        )
        self.path = path


class StoreUrlError(StoreError):
    """The store address names no backend that exists."""

    def __init__(self, url: str, why: str, schemes: tuple[str, ...]) -> None:
        super().__init__(f"store address {url!r}: {why}; known are {', '.join(schemes)}")
        self.url = url
        self.why = why
        self.schemes = schemes


class LimitError(StoreError):
    """A named limit was exceeded by the caller."""

    def __init__(self, limit: str, allowed: int, actual: int) -> None:
        super().__init__(f"{limit} is {allowed}, got {actual}")
        self.limit = limit
        self.allowed = allowed
        self.actual = actual


class LocalProtocolError(StoreError):
    """Our own code used a core out of turn (for example an append while another is in flight). A bug."""
