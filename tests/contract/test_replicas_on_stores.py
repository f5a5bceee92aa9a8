"""Three servers of `muster up --replicas 3` on a store over a network: one leads, any may be called, one takes over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import muster
from federation.cli.local import commands
from federation.cli.local.fleet import LocalFleet
from muster.retry import RetryRule
from storage.open import open_existing
from storage.verify import verify
from tests.integration.fleets import leader, until
from tests.integration.server_process import gang
from tests.servers.kinds import Servers


@pytest.fixture(scope="module", params=["etcd", "ministack", "moto"])
def fleet(
    request: pytest.FixtureRequest, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalFleet]:
    found = LocalFleet.make(
        tmp_path_factory.mktemp("fleet"),
        clusters=["c-1"],
        nodes=["1xA100-80:8"],
        preset="fast",
        replicas=3,
        store=servers.new_store(request.param),
    )
    try:
        found.up()
        yield found
    finally:
        found.down()


def called(fleet: LocalFleet, role: str) -> muster.Client:
    """A client of this one server."""
    return muster.Client(commands.url(fleet.state, role), fleet.token, retry=RetryRule(10))


def shows(client: muster.Client, uid: str, phase: str = "") -> bool:
    try:
        view = client.get_group(uid)
    except muster.NotFoundError:
        return False
    return not phase or view.status.phase == phase


def is_ready(client: muster.Client) -> bool:
    try:
        return bool(client.readiness()["ready"])
    except muster.UnavailableError:
        return False  # it does not listen yet


def test_a_submission_to_a_follower_is_forwarded_and_every_server_shows_it(fleet: LocalFleet) -> None:
    led = leader(fleet)
    follower, other = (role for role in fleet.servers if role != led)
    with called(fleet, follower) as client:
        uid = client.submit(gang("forwarded", pods=1, gpus=1), request_id="forwarded").uid
        assert shows(client, uid)
        assert client.submit(gang("forwarded", pods=1, gpus=1), request_id="forwarded").uid == uid
    for role in (led, other):
        with called(fleet, role) as client:
            until(lambda: shows(client, uid, "Running"), f"{role} does not show that it runs")


def test_another_server_takes_over_with_all_that_was_acknowledged(fleet: LocalFleet) -> None:
    led = leader(fleet)
    with muster.Client(fleet.server_url, fleet.token, retry=RetryRule(60)) as client:
        before = [client.submit(gang(f"before-{number}", pods=1, gpus=1)).uid for number in range(5)]
        fleet.kill(led)
        after = [client.submit(gang(f"after-{number}", pods=1, gpus=1)).uid for number in range(5)]
    until(lambda: fleet.leader() not in {None, led}, "nobody took over")
    fleet.start(led)
    for role in fleet.servers:
        with called(fleet, role) as client:
            until(lambda: is_ready(client), f"{role} does not catch up")
            for uid in (*before, *after):
                until(lambda: shows(client, uid), f"{role} does not show {uid}")  # noqa: B023
    assert len({*before, *after}) == 10


def test_the_journal_of_several_servers_is_whole(fleet: LocalFleet) -> None:
    store = open_existing(fleet.state.store)
    try:
        until(lambda: verify(store).bad is None, "it is not whole")
        assert verify(store).term >= 1
    finally:
        store.close()
