"""The searches that are run: where no double run may be found, and where each dropped rule must show one.

The figures are exact and part of the specification: a changed model changes them, and whoever changes it looks here.
"""

from dataclasses import dataclass, replace

from tests.model.rules import Policy, Rule, Setting


@dataclass(frozen=True, slots=True)
class Proof:
    """A search that sees every state and finds no double run."""

    setting: Setting
    states_count: int


ONE_FENCE = Setting(Policy.STOP_AND_MOVE, placements_max=2, fences_max=(1, 0))
TWO_FENCES = Setting(Policy.STOP_AND_MOVE, placements_max=2, fences_max=(2, 0))
THREE_PLACEMENTS = Setting(Policy.STOP_AND_MOVE, placements_max=3, fences_max=(1, 0))
HELD = Setting(Policy.HOLD_IN_PLACE, placements_max=2, fences_max=(1, 0))

PROOFS = (
    Proof(TWO_FENCES, states_count=32_708),
    Proof(THREE_PLACEMENTS, states_count=78_118),
    Proof(HELD, states_count=343_720),
)
LARGE_PROOFS = (  # minutes, 1.5 GB: for the exam
    Proof(Setting(Policy.STOP_AND_MOVE, placements_max=3, fences_max=(2, 0)), states_count=571_540),
    Proof(Setting(Policy.HOLD_IN_PLACE, placements_max=2, fences_max=(2, 0)), states_count=2_251_403),
    Proof(Setting(Policy.STOP_AND_MOVE, placements_max=3, fences_max=(1, 1)), states_count=4_814_371),
)

# The smallest setting in which dropping the rule gives a double run.
SHOWN_IN: dict[Rule, Setting] = {
    **dict.fromkeys(Rule, ONE_FENCE),
    Rule.VERDICT_NAMES_TOKEN: THREE_PLACEMENTS,
    Rule.SWAP_NAMES_EPOCH: TWO_FENCES,
    Rule.HELD_ONLY_IF_ACKNOWLEDGED: HELD,
    Rule.BOUND_ONLY_WHILE_HOME: HELD,
    Rule.FENCE_DONE_SPARES_BOUND: HELD,
    Rule.CONFIRM_DEAD_BEFORE_ADMISSION: HELD,
}
NOT_NEEDED = (Rule.PLACED_ONLY_ON_ACTIVE_LEASE,)
NEEDED = tuple(rule for rule in Rule if rule not in NOT_NEEDED)


def without(rule: Rule) -> Setting:
    """The search that drops this rule."""
    return replace(SHOWN_IN[rule], dropped=rule)
