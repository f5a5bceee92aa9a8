"""Sending a verdict again and again, ever more slowly, until it is answered. Which verdict is `binding`'s."""

from __future__ import annotations

from cluster_agents.core.config import VERDICT_RESEND_S, VERDICT_RESEND_S_MAX
from cluster_agents.core.hands import Hands
from cluster_agents.core.ledger import DETAIL_CHARS_MAX, Entry
from cluster_agents.core.plan import Plan
from federation.protocol.messages import Verdict


class Teller:
    """The verdicts of one token; one at a time is being told."""

    def __init__(self, uid: str, token: str) -> None:
        self._uid = uid
        self._token = token
        self._at_s = 0.0
        self._every_s = VERDICT_RESEND_S

    def anew(self) -> None:
        """The next verdict is another one, or the last was answered: it goes out at once."""
        self._at_s, self._every_s = 0.0, VERDICT_RESEND_S

    def tell(
        self, hands: Hands, verdict: str, *, pods: int = 0, entry: Entry | None = None, size: Plan | None = None
    ) -> float:
        """Send it if it is time; when to come back. `entry`: of a give-up; `size`: the outcome of a resize."""
        reasons, detail = (entry.reasons, entry.detail) if entry else ((), "")
        if size is not None and size.declined:
            reasons, detail = size.declined[:1], " ".join(size.declined[1:])[:DETAIL_CHARS_MAX]
        if hands.now_s >= self._at_s:
            hands.say(
                Verdict(
                    ask_id=hands.ask_id(),
                    cluster=hands.config.cluster,
                    uid=self._uid,
                    token=self._token,
                    verdict=verdict,
                    pods=pods,
                    reasons=reasons,
                    detail=detail,
                    succeeded=entry.succeeded if entry else False,
                    counts=size.counts if size else (),
                    resized_at=size.resized_at if size else 0,
                )
            )
            self._at_s = hands.now_s + self._every_s
            self._every_s = min(VERDICT_RESEND_S_MAX, self._every_s * 1.5)
        return self._at_s
