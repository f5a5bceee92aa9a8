"""The life of a PodGroup through one server: DESIGN §6, the hops that are the server's."""

from __future__ import annotations

from federation.protocol.messages import Doorbell
from placement.model import Phase
from tests.unit.federation.pump import started


def test_a_group_goes_from_submission_to_success_and_every_hop_is_recorded() -> None:
    pump = started()
    (east,) = pump.join("east")

    uid = pump.submit("train", pods=2)
    home = pump.group(uid).home
    assert home is not None
    assert home.cluster == "east"
    assert pump.group(uid).phase is Phase.PLACED
    assert ("east", Doorbell(cluster="east", position=home.token.position)) in pump.rung

    desired = east.desired()
    assert desired is not None
    assert [(group.uid, group.token, group.intent) for group in desired.groups] == [(uid, str(home.token), "run")]

    bound = east.verdict(uid, "Bound", pods=2)
    assert bound is not None
    assert bound.landed_at == pump.group(uid).bound_at
    assert pump.group(uid).phase is Phase.BOUND
    east.verdict(uid, "Running", pods=2)
    assert pump.group(uid).phase is Phase.RUNNING
    finished = east.verdict(uid, "Finished", succeeded=True)
    assert finished is not None
    assert finished.landed_at == pump.state.head
    assert pump.group(uid).phase is Phase.SUCCEEDED
    assert pump.group(uid).home is None
    assert [type(line.record).__name__ for line in pump.state.history(uid)] == [
        "Submitted",
        "Placed",
        "Bound",
        "Running",
        "GaveUp",
    ]
