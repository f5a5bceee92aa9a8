"""The bars of the placement exams: each is noticed when it is missed, and none when all is well."""

from __future__ import annotations

import pytest

from federation.simulate.churn import ChurnReport, ChurnRow
from federation.simulate.openb import OpenbReport, PolicyName
from tests.quality.bars import PUBLISHED, missed_alone, missed_federated, missed_together, missed_with_departures


def alone(policy: PolicyName, at_100: float) -> OpenbReport:
    return OpenbReport(policy=policy, runs=[], mean={"100": at_100}, seconds=0.0)


def over_clusters(at_100: float, *, view_age: int = 0) -> OpenbReport:
    return OpenbReport(
        policy="muster", runs=[], mean={"100": at_100}, seconds=0.0, clusters=16, split="model", view_age=view_age
    )


def churned(policy: PolicyName, refused_pct: float, load: str = "95") -> ChurnReport:
    row = ChurnRow(load=load, refused_pct=refused_pct, refused_pods_pct=0.0, unallocated_pct=0.0, runs=[])
    return ChurnReport(policy=policy, seeds=[42], loads=[row], seconds=0.0)


@pytest.mark.parametrize(
    ("name", "policy", "at_100", "missed"),
    [
        ("default", PolicyName.MUSTER, 4.0, []),
        ("default", PolicyName.MUSTER, 4.01, ["default: 4.01, at most 4.0 is wanted"]),
        ("multigpu40", PolicyName.MUSTER, 2.89, []),
        ("multigpu40", PolicyName.MUSTER, 2.90, ["multigpu40: 2.90, and FGD's published mean is 3.09"]),
        ("default", PolicyName.FGD, 5.17, []),
        ("default", PolicyName.FGD, 5.18, ["default: fgd gives 5.18, published is 4.77"]),
        ("default", PolicyName.RANDOM, 13.29, ["default: random gives 13.29, published is 13.70"]),
        ("a-list-of-others", PolicyName.MUSTER, 50.0, []),
    ],
)
def test_a_rule_on_one_list_is_held_against_what_was_published(
    name: str, policy: PolicyName, at_100: float, missed: list[str]
) -> None:
    assert list(missed_alone(name, alone(policy, at_100))) == missed


def test_nine_lists_have_a_bar_of_their_own_and_eight_have_none() -> None:
    ours = {name: alone(PolicyName.MUSTER, 4.46) for name in PUBLISHED}
    assert list(missed_together(ours)) == ["mean of nine lists: 4.46, at most 4.45 is wanted"]
    del ours["default"]
    assert list(missed_together(ours)) == []


def test_several_clusters_are_held_to_their_bar_while_the_view_is_fresh() -> None:
    assert list(missed_federated(over_clusters(4.1))) == []
    assert list(missed_federated(over_clusters(4.11))) == ["16 clusters by model: 4.11, at most 4.1 is wanted"]
    assert list(missed_federated(over_clusters(9.0, view_age=10))) == []


@pytest.mark.parametrize(
    ("ours", "theirs", "missed"),
    [
        (0.0, 0.0, []),
        (1.0, 1.1, []),
        (1.0, 1.0, ["default with departures, load 95: 1.00 refused, bestfit 1.00"]),
        (1.2, 1.1, ["default with departures, load 95: 1.20 refused, bestfit 1.10"]),
    ],
)
def test_our_rule_refuses_less_than_any_other_where_something_is_refused(
    ours: float, theirs: float, missed: list[str]
) -> None:
    found = [churned(PolicyName.MUSTER, ours), churned(PolicyName.BESTFIT, theirs)]
    assert list(missed_with_departures("default", found)) == missed
