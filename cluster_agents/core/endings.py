"""How a gang ends: the give-up that its members demand, as a value. Carrying it out is `binding`'s."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cluster_agents.core.jobs import JobView
from cluster_agents.core.ledger import DETAIL_CHARS_MAX, Entry
from cluster_agents.core.members import BAD, Member, Members
from cluster_agents.core.plan import Plan
from cluster_agents.core.stages import GROWING, Stage
from placement.model import DisruptionMode, Reason

OUT_OF_RETRIES: Final = "BackoffLimitExceeded"


@dataclass(frozen=True, slots=True)
class Ending:
    """One of the three final verdicts, with reason codes, and words for people."""

    verdict: str
    reasons: tuple[str, ...] = ()
    detail: str = ""
    succeeded: bool = False

    def entry(self, uid: str, token: str) -> Entry:
        """As it stands in the ledger."""
        return Entry(
            uid=uid,
            token=token,
            verdict=self.verdict,
            reasons=self.reasons,
            detail=self.detail[:DETAIL_CHARS_MAX],
            succeeded=self.succeeded,
        )


def refused(reason: Reason, detail: str) -> Ending:
    """It never became whole here."""
    return Ending("Refused", (reason.code,), detail)


def released(code: str, detail: str = "") -> Ending:
    """It was stopped, and may run elsewhere. `code`: a reason's, or one that a newer server named."""
    return Ending("Released", (code,), detail)


def finished(detail: str, *, succeeded: bool) -> Ending:
    return Ending("Finished", (), detail, succeeded)


def ending_of(plan: Plan, members: Members, stage: Stage, *, ran: bool) -> Ending | None:
    """What the states of the members mean for the whole gang; None while it may go on. `ran`: it once ran whole."""
    bad = members.count(*BAD)
    done = members.count(Member.SUCCEEDED)
    if bad and not _survives(plan, stage, bad):
        gravest = next(member for member in BAD if members.count(member))
        return _ending_for(gravest, members.named(gravest), stage, ran=ran)
    if done and done + bad == plan.settled:
        return finished(f"{done} of {plan.settled} pods succeeded", succeeded=done >= plan.min_count)
    return None


def ending_by_job(job: JobView, members: Members, *, taken: bool, fenced: bool) -> Ending | None:
    """What the end of the Job means for the gang; None where only its pods say. A Job that ran out of retries because
    pods were taken away did nothing wrong. `taken`: some were, by an eviction or with their node. `fenced`: a guard
    ended some, and the controller takes what they came to for the Job's own end."""
    end = job.end
    if end is None or fenced or (end.reason == OUT_OF_RETRIES and (taken or not members.count(Member.FAILED))):
        return None
    return finished(f"{end.reason}: {end.message}", succeeded=end.succeeded)


def job_may_be_over(job: JobView | None, members: Members, *, taken: bool) -> bool:
    """Whether pods may be gone because their Job is over. Its controller deletes them before it says so; where it goes
    on, it makes others in their place, which find no seat."""
    if job is None or job.still or job.deleting or taken:
        return False
    return not members.count(Member.SPARE, Member.REJECTED, Member.MISPLACED)


def _survives(plan: Plan, stage: Stage, bad: int) -> bool:
    single = plan.disruption_mode == DisruptionMode.SINGLE.value
    return single and stage is Stage.WHOLE and plan.settled - bad >= plan.min_count


def _ending_for(member: Member, names: str, stage: Stage, *, ran: bool) -> Ending:
    match member:
        case Member.FAILED:
            return finished(f"failed: {names}", succeeded=False)
        case Member.REJECTED if not ran:
            return refused(Reason.KUBELET_REJECTED, names)
        case _ if stage in GROWING:
            return refused(Reason.BIND_CONFLICT, names)
        case _:
            return released(Reason.MEMBER_LOST.code, names)
