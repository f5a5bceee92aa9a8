"""A broken promise, with the facts a person needs to find out why."""

from __future__ import annotations


class ViolationError(Exception):
    """`checker` is the invariant's number (or `crash`); `words` pick the lines of the trace that belong to it."""

    def __init__(self, checker: str, why: str, words: tuple[str, ...] = ()) -> None:
        super().__init__(f"{checker}: {why}")
        self.checker = checker
        self.why = why
        self.words = words
