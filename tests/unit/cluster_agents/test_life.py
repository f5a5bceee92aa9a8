"""The life of a group in one cluster, hop by hop (DESIGN §6 rows 7-12), from the desired state to its landed verdict."""

from tests.unit.cluster_agents.rig import Rig


def test_a_desired_group_is_bound_whole_and_reported_bound_then_running() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=3, gpus=2)
    rig.ring()
    rig.advance(5.0)
    assert rig.bound(token) == 3
    assert len(rig.live(token)) == 3
    assert rig.federation.heard(token) == ["Bound", "Running"]


def test_a_group_whose_pods_all_succeed_is_finished_and_nothing_of_it_is_left() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=2, run_s=10)
    rig.ring()
    rig.advance(30.0)
    verdict = rig.federation.given_up(token)
    assert (verdict.verdict, verdict.succeeded) == ("Finished", True)
    assert rig.pods(token) == []
    assert rig.intents() == []
    assert rig.objects("services") == []
    assert rig.agent.ledger.entries() == []
    assert rig.agent.gangs == {}
