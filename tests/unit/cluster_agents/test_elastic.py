"""An elastic group in its cluster: as many pods as it was placed with, and a world of that size."""

from __future__ import annotations

from tests.unit.cluster_agents.rig import Rig


def placed(rig: Rig, counts: tuple[int, ...], **spec: object) -> str:
    token = rig.federation.place(pods=4, elastic=True, **{"min_count": 2, **spec})
    rig.federation.change(token, counts=counts)
    rig.ring()
    rig.advance(5.0)
    return token


def test_the_group_is_bound_with_the_pods_it_was_placed_with() -> None:
    rig = Rig().ready()
    token = placed(rig, (3,))
    assert rig.bound(token) == 3
    assert rig.federation.heard(token) == ["Bound", "Running"]
    bound = next(verdict for verdict in rig.federation.verdicts if verdict.verdict == "Bound")
    assert bound.pods == 3


def test_its_pods_know_a_world_of_that_size() -> None:
    rig = Rig().ready()
    token = placed(rig, (3,))
    sizes = [
        [one["value"] for one in pod["spec"]["containers"][0]["env"] if one["name"] == "MUSTER_WORLD_SIZE"]
        for pod in rig.pods(token)
    ]
    assert sizes == [["3"]] * 3


def test_what_does_not_fit_that_size_is_refused_though_fewer_pods_would_fit() -> None:
    """A smaller size is the placer's to choose: another cluster may have room for more."""
    rig = Rig().ready()
    token = rig.federation.place(pods=40, elastic=True, min_count=2)
    rig.ring()
    rig.advance(3.0)
    assert rig.federation.given_up(token).verdict == "Refused"


def test_a_size_that_the_group_may_not_have_is_refused_with_the_counts() -> None:
    rig = Rig().ready()
    token = placed(rig, (1,))
    verdict = rig.federation.given_up(token)
    assert (verdict.verdict, verdict.reasons) == ("Refused", ("TemplateRefused",))
    assert "(1,)" in verdict.detail


def test_a_restarted_agent_keeps_the_size() -> None:
    rig = Rig().ready()
    token = placed(rig, (3,))
    rig.restart()
    rig.advance(20.0)
    assert rig.bound(token) == 3
    assert rig.agent.gangs[token].plan is not None
    assert rig.agent.gangs[token].plan.pods == 3
