"""The ledger: give-ups not yet known to have landed, and `landed`, in one ConfigMap changed by compare-and-swap.

A give-up is final once its entry is durable here. The write that drops an entry raises `landed` in the same write:
from then on no older answer is acted on. One write is under way at a time; what comes meanwhile goes with the next.
Which groups are given up, and when an entry may be dropped, is decided elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping
from enum import Enum, auto
from typing import Final, NamedTuple

import msgspec

from cluster_agents.core.calls import LEDGER, Outcome, Request, Step, outcome
from cluster_agents.core.config import (
    BACKOFF_S,
    BACKOFF_S_MAX,
    KIND_LEDGER,
    LABEL_KIND,
    LEDGER_ENTRIES_MAX,
    LEDGER_NAME,
    AgentConfig,
)
from cluster_agents.core.events import KubeObject, WriteClass
from cluster_agents.core.objects import mapping, text

DETAIL_CHARS_MAX: Final = 160  # 10,000 entries must fit one ConfigMap (1 MiB) when compressed
DROPS_TOGETHER_S: Final = 0.25
"""How long a drop waits for a give-up, or for other drops, to share a write with: nothing that runs waits for it."""

PAGE_BYTES_MAX: Final = 16 * 1024 * 1024  # decompressed; more is not ours


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One final give-up: Refused, Released or Finished."""

    uid: str
    token: str
    verdict: str
    reasons: tuple[str, ...] = ()
    detail: str = ""
    succeeded: bool = False


class Page(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The ledger as it stands in the cluster. `write` names the write that made it: that is how an unknown outcome is
    resolved. `landed` is a position of `lineage`."""

    schema_version: int = 1
    write: str = ""
    boot: int = 0  # grows with every claim: what report stamps begin with
    lineage: str = ""
    landed: int = 0
    entries: tuple[Entry, ...] = ()


class LedgerUnreadableError(ValueError):
    """The ledger ConfigMap cannot be read: nothing may be started while what was given up is unknown."""


_page_decoder = msgspec.json.Decoder(Page)


def read_page(configmap: KubeObject) -> Page:
    """The page in a ledger ConfigMap; LedgerUnreadableError when it is not one."""
    packed = text(configmap, "binaryData", "page")
    unpack = zlib.decompressobj()
    try:
        plain = unpack.decompress(base64.b64decode(packed, validate=True), PAGE_BYTES_MAX)
        if unpack.unconsumed_tail:
            raise LedgerUnreadableError(f"the ledger is larger than {PAGE_BYTES_MAX} bytes")
        return _page_decoder.decode(plain)
    except (binascii.Error, zlib.error, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise LedgerUnreadableError(str(error)) from error


def page_configmap(page: Page, namespace: str) -> dict[str, object]:
    """The ConfigMap that holds `page`; `data` repeats for people what the packed page says."""
    packed = base64.b64encode(zlib.compress(msgspec.json.encode(page), 6)).decode()
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": LEDGER_NAME, "namespace": namespace, "labels": {LABEL_KIND: KIND_LEDGER}},
        "data": {"landed": str(page.landed), "lineage": page.lineage, "entries": str(len(page.entries))},
        "binaryData": {"page": packed},
    }


class Landed(NamedTuple):
    """Up to where, in which lineage, what was given up has landed; the later one is the greater."""

    lineage: str = ""
    position: int = 0


NOTHING_LANDED: Final = Landed()


class _Drop(NamedTuple):
    landed: Landed
    due_s: float  # when it is written at the latest


class _State(Enum):
    OFF = auto()
    READ = auto()  # not known: read before anything else
    READY = auto()  # known; claimed once `claimed`


class Ledger:
    """This process's hand on the ledger. `begin` when it becomes the one that acts."""

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self._state = _State.OFF
        self._boot = ""
        self._boot_min = 0
        self._landed_min = NOTHING_LANDED
        self._writes = 0
        self._version = ""  # resourceVersion; "" when there is no ConfigMap
        self._labels: Mapping[str, object] = {}
        self._page = Page()
        self._entries: dict[str, Entry] = {}
        self._adds: dict[str, Entry] = {}
        self._drops: dict[str, _Drop] = {}  # oldest first
        self._writing: Page | None = None
        self._unsure: Page | None = None  # written with unknown outcome, to be recognised by the read
        self._claimed = False
        self._reading = False
        self._retry_at_s = 0.0
        self._backoff_s = BACKOFF_S
        self.unreadable = ""

    # --- what it says -------------------------------------------------------------------------------------------------

    @property
    def boot(self) -> int:
        """Higher than that of every holder before, even where the Lease that counts them was deleted."""
        return self._page.boot

    @property
    def claimed(self) -> bool:
        """This process's first write landed: no write of an earlier holder can land any more."""
        return self._claimed

    def has(self, token: str) -> bool:
        """The give-up of this token is durable."""
        return token in self._entries

    def entry(self, token: str) -> Entry | None:
        return self._entries.get(token)

    def entries(self) -> list[Entry]:
        """The durable entries, by token."""
        return [self._entries[token] for token in sorted(self._entries)]

    @property
    def landed(self) -> Landed:
        return Landed(self._page.lineage, self._page.landed)

    def landed_in(self, lineage: str) -> int:
        """Answers of this lineage older than this position are not acted on."""
        return self._page.landed if self._page.lineage == lineage else 0

    def dropping(self, token: str) -> bool:
        return token in self._drops

    def room_for(self, groups: int) -> bool:
        """May one more group be accepted beside `groups` that may yet be given up?"""
        return len(self._entries.keys() | self._adds.keys()) + groups < LEDGER_ENTRIES_MAX

    # --- changes ------------------------------------------------------------------------------------------------------

    def begin(self, boot: str, *, boot_min: int = 1, landed_min: Landed = NOTHING_LANDED) -> None:
        """Start over as `boot`: read, claim, then be ready. `boot_min`, `landed_min`: what the Lease says, for where
        somebody has deleted the ledger."""
        self._state = _State.READ
        self._boot, self._boot_min, self._landed_min = boot, boot_min, landed_min
        self._page, self._entries = Page(), {}
        self._adds, self._drops = {}, {}
        self._writing = self._unsure = None
        self._reading = False
        self._claimed = False
        self._retry_at_s = 0.0
        self._backoff_s = BACKOFF_S

    def stop(self) -> None:
        """This process no longer acts."""
        self._state = _State.OFF
        self._claimed = False
        self._writing = None

    def add(self, entry: Entry) -> None:
        """Record a give-up with the next write. A token has one give-up: the first stands."""
        if entry.token in self._entries or entry.token in self._adds:
            return
        detail = entry.detail[:DETAIL_CHARS_MAX]
        self._adds[entry.token] = msgspec.structs.replace(entry, detail=detail)

    def drop(self, token: str, lineage: str, landed_at: int, now_s: float) -> None:
        """The verdict landed at this position: forget the entry, and raise `landed` in the same write."""
        if token in self._entries:
            known = self._drops.get(token)
            due_s = known.due_s if known else now_s + DROPS_TOGETHER_S
            self._drops[token] = _Drop(Landed(lineage, landed_at), due_s)

    def next_request(self, now_s: float) -> Request | None:
        """The read or write that is due."""
        if self._state is _State.OFF or now_s < self._retry_at_s or self._writing is not None or self._reading:
            return None
        if self._state is _State.READ:
            self._reading = True
            return self._read()
        if self._claimed and not self._adds and now_s < self._drops_due_s():
            return None
        self._writing = self._next_page()
        return self._write(self._writing)

    def wake_at_s(self) -> float:
        """When `next_request` may have something though nothing is answered."""
        if self._state is _State.OFF or self._writing is not None or self._reading:
            return float("inf")
        if self._state is _State.READ or self._adds or not self._claimed:
            return self._retry_at_s
        return max(self._retry_at_s, self._drops_due_s())

    def _drops_due_s(self) -> float:
        return next(iter(self._drops.values())).due_s if self._drops else float("inf")

    def _path(self, name: str = "") -> str:
        base = f"/api/v1/namespaces/{self._config.namespace}/configmaps"
        return f"{base}/{name}" if name else base

    def _read(self) -> Request:
        return Request(LEDGER, Step.LEDGER_READ, "", "GET", self._path(LEDGER_NAME), write_class=WriteClass.READ)

    def _next_page(self) -> Page:
        entries = {**self._entries, **self._adds}
        for token in self._drops:
            entries.pop(token, None)
        landed = max(self.landed, self._landed_min, *(drop.landed for drop in self._drops.values()))
        self._writes += 1
        return Page(
            write=f"{self._boot}/{self._writes}",
            boot=self._page.boot if self._claimed else max(self._boot_min, self._page.boot + 1),
            lineage=landed.lineage,
            landed=landed.position,
            entries=tuple(entries[token] for token in sorted(entries)),
        )

    def _write(self, page: Page) -> Request:
        body = page_configmap(page, self._config.namespace)
        if not self._version:
            return Request(LEDGER, Step.LEDGER_WRITE, "", "POST", self._path(), body)
        metadata = {**mapping(body, "metadata"), "resourceVersion": self._version}
        return Request(LEDGER, Step.LEDGER_WRITE, "", "PUT", self._path(LEDGER_NAME), {**body, "metadata": metadata})

    # --- answers ------------------------------------------------------------------------------------------------------

    def answered(self, step: Step, status: int, body: KubeObject, now_s: float) -> bool:
        """Take an answer in; True when entries, `landed` or the claim changed."""
        if self._state is _State.OFF:
            return False
        if step is Step.LEDGER_READ:
            self._reading = False
            return self._was_read(status, body, now_s)
        match outcome(status):
            case Outcome.DONE if text(body, "metadata", "resourceVersion"):
                self._version = text(body, "metadata", "resourceVersion")
                return self._landed()
            case Outcome.BUSY | Outcome.THROTTLED | Outcome.REFUSED:
                self._writing = None
                self._later(now_s)
            case _:  # another writer, unknown, or an answer that is no API server's: what stands in the cluster decides
                self._unsure, self._writing = self._writing, None
                self._state = _State.READ
                if outcome(status) is not Outcome.CONFLICT:
                    self._later(now_s)
        return False

    def _was_read(self, status: int, body: KubeObject, now_s: float) -> bool:
        match outcome(status):
            case Outcome.MISSING:
                self._version, self._state, self._unsure = "", _State.READY, None
                return False
            case Outcome.DONE:
                return self._adopt(body, now_s)
            case _:
                self._later(now_s)
                return False

    def _adopt(self, body: KubeObject, now_s: float) -> bool:
        """What stands in the cluster is the truth; our own open write is recognised by its name."""
        try:
            page = read_page(body)
        except LedgerUnreadableError as error:
            self.unreadable = str(error)
            self._later(now_s)
            return False
        self.unreadable = ""
        self._version = text(body, "metadata", "resourceVersion")
        self._state = _State.READY
        unsure, self._unsure = self._unsure, None
        if unsure is not None and page.write == unsure.write:
            self._writing = unsure
            return self._landed()
        self._page = page
        self._entries = {entry.token: entry for entry in page.entries}
        self._adds = {token: entry for token, entry in self._adds.items() if token not in self._entries}
        self._drops = {token: at for token, at in self._drops.items() if token in self._entries}
        return True

    def _landed(self) -> bool:
        page, self._writing = self._writing, None
        self._backoff_s = BACKOFF_S
        if page is None:
            return False
        self._page = page
        self._entries = {entry.token: entry for entry in page.entries}
        self._adds = {token: entry for token, entry in self._adds.items() if token not in self._entries}
        self._drops = {token: at for token, at in self._drops.items() if token in self._entries}
        self._claimed = True
        return True

    def _later(self, now_s: float) -> None:
        self._retry_at_s = now_s + self._backoff_s
        self._backoff_s = min(BACKOFF_S_MAX, self._backoff_s * 2)

    def check_invariants(self) -> None:
        """AssertionError unless entries are keyed by their token and drops name entries."""
        assert all(token == entry.token for token, entry in self._entries.items())
        assert all(token in self._entries for token in self._drops)
        assert len(self._entries) <= LEDGER_ENTRIES_MAX
