"""What happened, in order: hashed always, kept in memory only as far as a failing seed needs it."""

from __future__ import annotations

import hashlib
from collections import deque
from typing import Final

import msgspec

LINES_KEPT: Final = 400  # the last lines printed with a failure
FLUSH_LINES: Final = 1_024

Line = tuple[float, str, str, str]


class Trace:
    """The ordered trace `(time, actor, what, facts)`. Equal seeds give equal hashes, whatever PYTHONHASHSEED says."""

    def __init__(self, *, keep_all: bool = False) -> None:
        self._hash = hashlib.sha256()
        self._unhashed: list[Line] = []
        self._last: deque[Line] = deque(maxlen=None if keep_all else LINES_KEPT)
        self.lines_count = 0

    def note(self, now_s: float, actor: str, what: str, facts: str = "") -> None:
        line = (now_s, actor, what, facts)
        self._unhashed.append(line)
        if len(self._unhashed) >= FLUSH_LINES:
            self._flush()

    def digest(self) -> str:
        self._flush()
        return self._hash.hexdigest()

    def last(self, count: int = LINES_KEPT) -> list[str]:
        """The last lines, as text."""
        self._flush()
        return [show(line) for line in list(self._last)[-count:]]

    def about(self, words: tuple[str, ...]) -> list[str]:
        """The kept lines whose facts name one of `words` (a uid, a token, a cluster)."""
        self._flush()
        return [show(line) for line in self._last if any(word in line[3] or word == line[1] for word in words)]

    def _flush(self) -> None:
        if self._unhashed:
            self._hash.update(msgspec.msgpack.encode(self._unhashed))
            self._last.extend(self._unhashed)
            self.lines_count += len(self._unhashed)
            self._unhashed.clear()


def show(line: Line) -> str:
    now_s, actor, what, facts = line
    return f"{now_s:10.3f}  {actor:<12} {what:<24} {facts}".rstrip()
