"""What the news of the desired state make of gangs: stops at once, new groups into the intake, the rest accepted.

Whether an answer counts, and whether anything may start, is the home rule's, in `reconcile`.
"""

from __future__ import annotations

from cluster_agents.core.binding import Gang
from cluster_agents.core.desired import Desired, DesiredNews
from cluster_agents.core.hands import Hands
from cluster_agents.core.intake import Intake
from cluster_agents.core.roster import Roster
from placement.model import Reason


class Obedience:
    """To one process's desired state."""

    def __init__(self, desired: Desired, intake: Intake, roster: Roster, hands: Hands) -> None:
        self._desired = desired
        self._intake = intake
        self._roster = roster
        self._hands = hands
        self._lineage = ""
        self._stops_early: set[str] = set()  # to stop, never begun here, named by an answer that did not count yet

    def obey(self, news: DesiredNews, *, counts: bool) -> None:
        """Stops are obeyed at once; what is to run waits for the right to start."""
        if self._lineage not in {"", self._desired.lineage}:
            self._roster.tell_again()
        self._lineage = self._desired.lineage
        tokens = set(news.tokens) | self._roster.gangs.keys() if news.full else set(news.tokens)
        tokens |= self._stops_early
        self._stops_early = set()
        for token in sorted(tokens):
            self._obey_one(token, counts=counts)
            self._roster.look_at(token)

    def _obey_one(self, token: str, *, counts: bool) -> None:
        group, gang = self._desired.group(token), self._roster.get(token)
        now_s = self._hands.now_s
        if group is None:
            self._intake.drop(token)
            if gang is not None and self._desired.covers(gang.parsed):
                gang.release(Reason.NOT_DESIRED.code)
        elif group.intent != "run":
            self._intake.drop(token)
            reason = group.stop_reason or Reason.NOT_DESIRED.code
            if gang is not None:
                gang.release(reason)
            elif counts:
                self._roster.add(Gang.stopped(group.uid, token, reason, now_s=now_s))
            else:
                self._stops_early.add(token)  # the next answer may count; no delta names the token again
        elif gang is None:
            self._intake.add(group, now_s)
        elif counts and self._hands.may_start:
            gang.accept(group)
        else:
            gang.bound_landed = gang.bound_landed or group.bound
