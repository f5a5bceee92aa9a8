"""The home rule, searched exhaustively on the model in `tests/model`: no double run, and no rule of it is idle."""

from pathlib import Path

import pytest

from tests.model.catalogue import HELD, NEEDED, NOT_NEEDED, ONE_FENCE, PROOFS, THREE_PLACEMENTS, Proof, without
from tests.model.report import counterexample, described
from tests.model.rules import Rule, Setting
from tests.model.search import Goal, Search, double_run
from tests.model.state import Cluster, Journal, Kind

DOCUMENT = Path(__file__).parents[2] / "docs" / "home-rule.md"

STEPS_TO_DOUBLE_RUN = {
    Rule.GIVE_UP_IS_FINAL: 13,
    Rule.VERDICT_AFTER_LAST_CONTAINER: 13,
    Rule.ANSWER_NOT_BELOW_FLOOR: 15,
    Rule.ANSWER_NOT_BELOW_LANDED: 14,
    Rule.DROP_RAISES_LANDED: 14,
    Rule.ACT_UNDER_LIVE_LEASE: 15,
    Rule.FENCE_DONE_AFTER_K: 14,
    Rule.ONLY_LEADER_READMITS: 13,
    Rule.READMIT_AFTER_FENCE_DONE: 15,
    Rule.READMIT_AFTER_CLEAN_REPORT: 17,
    Rule.PLACED_ONLY_WITHOUT_HOME: 10,
    Rule.VERDICT_AFTER_LAST_WRITE: 13,
    Rule.VERDICT_COUNTS_UNSTARTED_PODS: 13,
    Rule.VERDICT_NAMES_TOKEN: 15,
    Rule.ANSWERED_AFTER_LANDING: 14,
    Rule.EVERY_WRITE_CHECKS_AGAIN: 16,
    Rule.WRITE_ENDS_AT_DEADLINE: 17,
    Rule.DEADLINE_FROM_SENDING: 13,
    Rule.GUARD_STOPS_LATE_STARTS: 14,
    Rule.FENCE_AGAINST_SILENT_VERSION: 13,
    Rule.SWAP_NAMES_EPOCH: 19,
    Rule.REPORT_COUNTS_UNSTARTED_PODS: 17,
    Rule.HELD_ONLY_IF_ACKNOWLEDGED: 16,
    Rule.BOUND_ONLY_WHILE_HOME: 17,
    Rule.FENCE_DONE_SPARES_BOUND: 17,
    Rule.CONFIRM_DEAD_BEFORE_ADMISSION: 23,
}


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: described(proof.setting))
def test_no_reachable_state_has_the_group_live_in_two_clusters(proof: Proof) -> None:
    outcome = Search(proof.setting).run()
    searched = f"{outcome.states_count:,} states, {outcome.steps_count:,} steps searched"
    assert outcome.trace is None, f"double run after {searched}: {outcome.trace}"
    assert outcome.exhausted, f"gave up after {searched}"
    assert outcome.states_count == proof.states_count, f"another model: {searched}"


@pytest.mark.parametrize("rule", NEEDED, ids=lambda rule: rule.name)
def test_without_this_rule_the_group_runs_in_two_clusters(rule: Rule) -> None:
    outcome = Search(without(rule)).run()
    assert outcome.trace is not None, f"{outcome.states_count:,} states searched without {rule.name}, no double run"
    assert len(outcome.trace) == STEPS_TO_DOUBLE_RUN[rule], "; ".join(outcome.trace)
    assert counterexample(rule, outcome) in DOCUMENT.read_text(), "docs/home-rule.md tells another story"


@pytest.mark.parametrize("rule", NOT_NEEDED, ids=lambda rule: rule.name)
def test_this_rule_serves_something_else_than_one_home(rule: Rule) -> None:
    outcome = Search(without(rule)).run()
    assert outcome.exhausted
    assert outcome.trace is None


def moved_and_came_back(_: Journal, first: Cluster, second: Cluster) -> bool:
    return second.runs() and first.active and first.floor > 0 and first.lease_floor == first.floor


def runs_again_where_it_was_lost(journal: Journal, first: Cluster, _: Cluster) -> bool:
    return journal.placements_count == 3 and first.epoch == 1 and len(first.copies) == 2 and first.copies[1].live


def late_verdict_cleans_the_ledger(journal: Journal, first: Cluster, _: Cluster) -> bool:
    return first.landed > 0 and journal.records[first.landed - 1].kind is Kind.FENCE_DONE


def held_past_its_fence(journal: Journal, first: Cluster, _: Cluster) -> bool:
    return first.runs() and not first.active and journal.records[-1].kind is Kind.FENCE_DONE


def moved_after_confirm_dead(journal: Journal, _: Cluster, second: Cluster) -> bool:
    return second.runs() and any(record.kind is Kind.CONFIRMED_DEAD for record in journal.records)


@pytest.mark.parametrize(
    ("setting", "goal"),
    [
        pytest.param(ONE_FENCE, moved_and_came_back, id="group runs elsewhere, lost cluster is admitted again"),
        pytest.param(THREE_PLACEMENTS, runs_again_where_it_was_lost, id="group returns to the cluster it was lost in"),
        pytest.param(ONE_FENCE, late_verdict_cleans_the_ledger, id="verdict on a fenced token is answered late"),
        pytest.param(HELD, held_past_its_fence, id="held group runs on past its fence"),
        pytest.param(HELD, moved_after_confirm_dead, id="held group moves after confirm-dead"),
    ],
)
def test_the_model_is_not_safe_by_standing_still(setting: Setting, goal: Goal) -> None:
    assert Search(setting, goal).run().trace is not None


def test_a_search_that_is_cut_short_says_so() -> None:
    outcome = Search(ONE_FENCE, double_run, states_max=1_000).run()
    assert not outcome.exhausted
    assert outcome.trace is None


def test_every_rule_has_its_trace_length_and_every_proof_is_in_the_document() -> None:
    assert set(STEPS_TO_DOUBLE_RUN) == set(NEEDED)
    document = DOCUMENT.read_text()
    for proof in PROOFS:
        assert f"| {described(proof.setting)} | {proof.states_count:,} |" in document
