"""The rules that together keep one group in one cluster, and the setting of a search; a setting can drop one rule."""

from dataclasses import dataclass
from enum import Enum


class Policy(Enum):
    """The group's effective policy, as written into its `Placed` records."""

    STOP_AND_MOVE = "StopAndMove"
    HOLD_IN_PLACE = "HoldInPlace"


class Rule(Enum):
    """A rule of the protocol; the value says what every implementation must keep."""

    # The home rule and its fence.
    GIVE_UP_IS_FINAL = "a ledger entry blocks every later write for its token"
    VERDICT_AFTER_LAST_CONTAINER = "a give-up verdict is sent only when every container of the token has ended"
    ANSWER_NOT_BELOW_FLOOR = "a desired-state answer counts only if as_of >= lease.floor"
    ANSWER_NOT_BELOW_LANDED = "a desired-state answer counts only if as_of >= ledger.landed"
    DROP_RAISES_LANDED = "the ledger write that drops an entry raises landed in the same write"
    ACT_UNDER_LIVE_LEASE = "an agent starts nothing without a live lease"
    FENCE_DONE_AFTER_K = "FenceDone is recorded only after every container that is not held has stopped"
    ONLY_LEADER_READMITS = "a relay never turns a Fenced lease into an Active one"
    READMIT_AFTER_FENCE_DONE = "ClusterAdmitted is recorded only after the FenceDone of that epoch"
    READMIT_AFTER_CLEAN_REPORT = "ClusterAdmitted needs a report showing nothing that the journal does not home there"
    PLACED_ONLY_WITHOUT_HOME = "Placed is recorded only if the home is none"

    # The fine print: what the rules above need in order to be true.
    VERDICT_AFTER_LAST_WRITE = "a give-up verdict is sent only when no write for the token can still land"
    VERDICT_COUNTS_UNSTARTED_PODS = "a pod that may still start counts as a container that has not ended"
    VERDICT_NAMES_TOKEN = "a give-up verdict ends only the home whose token it names"
    ANSWERED_AFTER_LANDING = "a give-up verdict is answered only after the home has ended in the journal"
    EVERY_WRITE_CHECKS_AGAIN = "every write, not only the arrival of the answer, is checked against floor and landed"
    WRITE_ENDS_AT_DEADLINE = "a write carries a time-out no longer than what remains of the lease"
    DEADLINE_FROM_SENDING = "the deadline of a lease counts from before the renewal was sent"
    GUARD_STOPS_LATE_STARTS = "past its deadline the guard also stops containers that start later"
    FENCE_AGAINST_SILENT_VERSION = "the fencing swap names the version whose silence was measured"
    SWAP_NAMES_EPOCH = "the admitting swap applies only to the epoch whose ClusterAdmitted it follows"
    REPORT_COUNTS_UNSTARTED_PODS = "the clean report counts pods that may still start as containers"

    # What HoldInPlace adds.
    HELD_ONLY_IF_ACKNOWLEDGED = "past its deadline an agent holds only groups whose Bound was acknowledged"
    BOUND_ONLY_WHILE_HOME = "Bound is recorded and acknowledged only while the token's home stands"
    FENCE_DONE_SPARES_BOUND = "FenceDone does not end the home of a held group whose Bound has landed"
    CONFIRM_DEAD_BEFORE_ADMISSION = "confirm-dead is refused once ClusterAdmitted of that epoch is recorded"

    # Asked for by the design, but not needed for one home: the search finds nothing without it either.
    PLACED_ONLY_ON_ACTIVE_LEASE = "nothing is placed on a cluster before its lease is known to be Active"


@dataclass(frozen=True, slots=True)
class Setting:
    """One search: the policy, how often the journal may place and fence, and at most one dropped rule."""

    policy: Policy
    placements_max: int
    fences_max: tuple[int, int]  # of c-1, of c-2
    dropped: Rule | None = None

    def keeps(self, rule: Rule) -> bool:
        """Whether the protocol searched here obeys `rule`."""
        return rule is not self.dropped

    def holds(self) -> bool:
        """Whether the group may run on past the lease's deadline."""
        return self.policy is Policy.HOLD_IN_PLACE
