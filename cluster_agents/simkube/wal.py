"""The API server's write-ahead log as bytes, one JSON line per write: objects survive a killed process. Pure."""

from collections.abc import Iterable, Iterator

import msgspec

from cluster_agents.simkube.apiserver.resources import RESOURCES
from cluster_agents.simkube.apiserver.store import Backup, Change, Key
from cluster_agents.simkube.apiserver.types import JsonObject


class Head(msgspec.Struct, frozen=True, tag="head"):
    """First line: the revision the following snapshot is of."""

    revision: int
    life: int


class Line(msgspec.Struct, frozen=True, tag="write"):
    """One write; `obj` None for a removal."""

    revision: int
    plural: str
    key: Key
    obj: JsonObject | None


class WalBrokenError(Exception):
    """The log cannot be read past this line; only a torn last line is expected after a crash."""

    def __init__(self, line: int) -> None:
        super().__init__(f"write-ahead log: line {line} cannot be read")
        self.line = line


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Head | Line)


def encode_change(change: Change) -> bytes:
    """One write as a line."""
    return _encoder.encode(Line(change.revision, change.plural, change.key, change.after)) + b"\n"


def encode_backup(backup: Backup) -> Iterator[bytes]:
    """All objects as the lines of a fresh log."""
    yield _encoder.encode(Head(backup.revision, backup.life)) + b"\n"
    for plural, objects in backup.tables.items():
        for key, obj in objects.items():
            yield _encoder.encode(Line(backup.revision, plural, key, obj)) + b"\n"


def decode(lines: Iterable[bytes]) -> Backup:
    """The objects after all whole lines. A last line without its newline was never acknowledged and is left out."""
    revision, life = 0, 0
    tables: dict[str, dict[Key, JsonObject]] = {plural: {} for plural in RESOURCES}
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n"):
            break
        try:
            entry = _decoder.decode(line)
        except msgspec.MsgspecError:
            raise WalBrokenError(number) from None
        if isinstance(entry, Head):
            revision, life = entry.revision, entry.life
            continue
        revision = max(revision, entry.revision)
        if entry.obj is None:
            tables[entry.plural].pop(entry.key, None)
        else:
            tables[entry.plural][entry.key] = entry.obj
    return Backup(revision, life, tables)
