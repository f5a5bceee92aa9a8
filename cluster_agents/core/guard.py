"""The rules of the node guard: which containers of ours must stop on one node, without asking the API server.

Pure: the host (a DaemonSet process, or simkube's kubelets) carries asks and answers and does the stopping.
Tokens are the text of the label `muster.io/token`, "<lineage>.<position>".
"""

from collections.abc import Iterable
from typing import Final

from federation.protocol.gpus import Gpu
from federation.protocol.messages import GuardAnswer, GuardAsk

ASKS_REMEMBERED_MAX: Final = 64
"""Asks whose answer may still come. An answer to an older ask is worth nothing: its remainder is long used up."""

ASKS_PER_BOOT_MAX: Final = 1 << 40
"""Ask ids of different starts of one guard never meet: id = boot * this + running number."""


class Guard:
    """One node's guard since its last start; `boot` differs at every start.

    `held_before` is what an earlier start of the same guard last knew to be holdable (node disk). Trusting it is
    safe: a token may be held only after its group's `Bound` landed, and then no fence moves it for as long as it lives.
    """

    __slots__ = (
        "_asked_at_s",
        "_asks",
        "_boot",
        "_deadline_s",
        "_hold",
        "_lease_known",
        "_newest",
        "_starts",
        "node",
        "renewal_s",
        "started_at_s",
    )

    def __init__(
        self,
        node: str,
        boot: int,
        *,
        started_at_s: float,
        renewal_s: float,
        held_before: frozenset[str] = frozenset(),
    ) -> None:
        assert boot >= 0
        assert renewal_s > 0
        self.node = node
        self.renewal_s = renewal_s
        self.started_at_s = started_at_s
        self._boot = boot
        self._asks = 0
        self._asked_at_s: dict[int, float] = {}  # ask id -> our clock before it left, oldest first
        self._newest: tuple[float, int] | None = None  # (asked at, ask id) of the newest ask answered
        self._deadline_s: float | None = None
        self._lease_known = False  # some answer since the start told of a lease that still ran
        self._hold = held_before
        self._starts = True

    @property
    def deadline_s(self) -> float | None:
        """Where the furthest remainder told to us ends; None until an ask of this start was answered."""
        return self._deadline_s

    @property
    def hold(self) -> frozenset[str]:
        """The tokens the newest answer (or an earlier start) named as holdable."""
        return self._hold

    @property
    def fences_at_s(self) -> float:
        """When this guard fences unless another answer comes: its deadline, or one renewal after its start."""
        return self.started_at_s + self.renewal_s if self._deadline_s is None else self._deadline_s

    @property
    def ask_due_s(self) -> float:
        """When to ask next: at the start, then every renewal interval, answered or not."""
        last_s = next(reversed(self._asked_at_s.values()), None)
        return self.started_at_s if last_s is None else last_s + self.renewal_s

    def ask(self, now_s: float, gpus: tuple[Gpu, ...] | None = None) -> GuardAsk:
        """Note that an ask leaves now. Its answer will count from this reading of our clock, not from its arrival.
        `gpus` are told along, if any are known."""
        assert now_s >= self.started_at_s
        assert self._asks < ASKS_PER_BOOT_MAX
        self._asks += 1
        ask_id = self._boot * ASKS_PER_BOOT_MAX + self._asks
        self._asked_at_s[ask_id] = now_s
        if len(self._asked_at_s) > ASKS_REMEMBERED_MAX:
            del self._asked_at_s[next(iter(self._asked_at_s))]
        return GuardAsk(node=self.node, ask_id=ask_id, gpus=gpus)

    def answered(self, answer: GuardAnswer) -> None:
        """Take an answer in. Repeats, late ones and answers to an earlier start's asks are harmless."""
        asked_at_s = self._asked_at_s.get(answer.ask_id)
        if asked_at_s is None:
            return
        deadline_s = asked_at_s + answer.remaining_s
        # An agent's lease end never moves back (it renews for at least what it has told us), so the furthest one holds.
        self._deadline_s = deadline_s if self._deadline_s is None else max(self._deadline_s, deadline_s)
        self._lease_known = self._lease_known or answer.remaining_s > 0
        if self._newest is None or (asked_at_s, answer.ask_id) >= self._newest:
            self._newest = (asked_at_s, answer.ask_id)
            self._hold = frozenset(answer.hold)
            self._starts = answer.starts

    def fences(self, now_s: float) -> bool:
        """True from the deadline on; before any answer, from one renewal interval after the start on."""
        return now_s >= self.fences_at_s

    def may_start(self, token: str, now_s: float) -> bool:
        """May a container of this token start now? Before the deadline yes; past it, only a held one may start again.

        And a held one only if this start of the guard has known a live lease. After a power failure the group may have
        been confirmed dead and moved, and an agent that has not yet heard a server would still name it as held. None at
        all while the fleet recovers from a backup: what is bound here may have moved long ago.
        """
        if self._deadline_s is None or not self._starts:
            return False
        return now_s < self._deadline_s or (self._lease_known and token in self._hold)

    def due(self, now_s: float, live: Iterable[str]) -> tuple[str, ...]:
        """The tokens among `live` whose containers must stop now, in order. Empty before the deadline."""
        if not self.fences(now_s):
            return ()
        return tuple(sorted(set(live) - self._hold))
