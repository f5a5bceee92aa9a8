"""Three servers on one folder: one leads, any may be called, and a killed leader costs nothing acknowledged."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
import pytest

import muster
from federation.cli.local import commands
from federation.cli.local.fleet import LocalFleet
from muster.retry import RetryRule
from storage.open import open_store
from storage.verify import verify
from tests.integration.fleets import leader, until
from tests.integration.server_process import gang

KILLS: Final = 3
SUBMITTERS: Final = 3


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFleet]:
    root = tmp_path_factory.mktemp("fleet")
    found = LocalFleet.make(
        root,
        clusters=["c-1"],
        nodes=["4xA100-80:8"],
        preset="fast",
        replicas=3,
        store=f"file://{root}/store",
    )
    try:
        found.up()
        yield found
    finally:
        found.down()


def followers(fleet: LocalFleet) -> list[str]:
    led = leader(fleet)
    return [role for role in fleet.servers if role != led]


def called(fleet: LocalFleet, role: str) -> muster.Client:
    """A client of this one server."""
    return muster.Client(commands.url(fleet.state, role), fleet.token, retry=RetryRule(10))


def test_what_is_written_at_a_follower_can_be_read_there_at_once(fleet: LocalFleet) -> None:
    for number, role in enumerate(followers(fleet)):
        with called(fleet, role) as client:
            uid = client.submit(gang(f"at-follower-{number}", pods=1, gpus=1)).uid
            assert client.get_group(uid).metadata.name == f"at-follower-{number}"
            client.cancel(uid)


def test_a_follower_says_who_leads(fleet: LocalFleet) -> None:
    led = leader(fleet)
    names = set()
    for role in fleet.servers:
        with called(fleet, role) as client:
            names.add(client.readiness()["leader"])
    assert names == {led.partition("/")[2] or "s-1"}


def test_a_forwarded_call_is_not_forwarded_again(fleet: LocalFleet) -> None:
    headers = {"Authorization": f"Bearer {fleet.token}", "Muster-Forwarded-By": "s-9"}
    url = commands.url(fleet.state, followers(fleet)[0])
    answer = httpx.post(f"{url}/v1/podgroups", json=gang("hops", pods=1), headers=headers, trust_env=False)
    assert (answer.status_code, answer.json()["reason"]) == (503, "NotLeader")


def test_a_follower_refuses_what_is_too_large_by_itself(fleet: LocalFleet) -> None:
    headers = {"Authorization": f"Bearer {fleet.token}"}
    url = commands.url(fleet.state, followers(fleet)[0])
    answer = httpx.post(f"{url}/v1/podgroups", content=b" " * (1024 * 1024 + 1), headers=headers, trust_env=False)
    assert (answer.status_code, answer.json()["reason"]) == (413, "TooLarge")


def test_a_follower_hands_the_leaders_refusals_on(fleet: LocalFleet) -> None:
    with called(fleet, followers(fleet)[0]) as client, pytest.raises(muster.InvalidError) as refused:
        client.submit(gang("unknown-queue", pods=1, queue="nowhere"))
    assert refused.value.reason == "UnknownQueue"


def test_running_work_does_not_notice_that_its_leader_was_killed(fleet: LocalFleet, tmp_path: Path) -> None:
    with muster.Client(fleet.server_url, fleet.token) as client:
        uid = client.submit(gang("steady", pods=1, gpus=1, priority=9)).uid
        until(lambda: client.get_group(uid).status.phase == "Running", "it does not start", 60.0)
        token = client.get_group(uid).status.token
        led = leader(fleet)
        fleet.kill(led)
        until(lambda: fleet.leader() not in {None, led}, "nobody took over")
        fleet.start(led)
        view = client.get_group(uid)
        assert (view.status.phase, view.status.token) == ("Running", token)
        log = (fleet.folder.cluster("c-1") / "runlog.jsonl").read_text().splitlines()
    started = [line for line in log if "steady" in line and json.loads(line)["event"] == "started"]
    ended = [line for line in log if "steady" in line and json.loads(line)["event"] == "ended"]
    assert (len(started), ended) == (1, [])


@dataclass
class Submitter:
    """Hands in one group after the other; keeps those that were acknowledged, by request id."""

    fleet: LocalFleet
    number: int
    uids: dict[str, str] = field(default_factory=dict)
    manifests: dict[str, dict[str, object]] = field(default_factory=dict)

    def run(self, stop: threading.Event) -> None:
        with muster.Client(self.fleet.server_url, self.fleet.token, retry=RetryRule(60)) as client:
            while not stop.is_set():
                request_id = f"kill-{self.number}-{len(self.uids)}"
                self.manifests[request_id] = gang(request_id, pods=1, gpus=1, queue="default")
                self.uids[request_id] = client.submit(self.manifests[request_id], request_id=request_id).uid
                time.sleep(0.02)


def test_leaders_killed_while_groups_are_submitted_lose_none_and_record_none_twice(fleet: LocalFleet) -> None:
    submitters = [Submitter(fleet, number) for number in range(SUBMITTERS)]
    stop = threading.Event()
    threads = [threading.Thread(target=one.run, args=(stop,)) for one in submitters]
    for thread in threads:
        thread.start()
    led = []
    try:
        for _ in range(KILLS):
            led.append(leader(fleet))
            before = sum(len(one.uids) for one in submitters)
            until(lambda: sum(len(one.uids) for one in submitters) > before + 5, "nothing is acknowledged")  # noqa: B023
            fleet.kill(led[-1])
            until(lambda: fleet.leader() not in {None, led[-1]}, "nobody took over")
            fleet.start(led[-1])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    acknowledged = {request_id: uid for one in submitters for request_id, uid in one.uids.items()}
    with muster.Client(fleet.server_url, fleet.token) as client:
        again = {
            request_id: client.submit(manifest, request_id=request_id).uid
            for one in submitters
            for request_id, manifest in list(one.manifests.items())[:10]
        }
    assert {request_id: acknowledged[request_id] for request_id in again} == again
    for role in fleet.servers:
        with called(fleet, role) as client:
            until(lambda: client.readiness()["ready"], f"{role} does not catch up")
            newest = max(acknowledged.values(), key=lambda uid: int(uid.rpartition(".")[2]))
            until(lambda: readable(client, newest), f"{role} does not show the newest group")  # noqa: B023
            shown = everything(client)
        times = Counter(shown.values())
        assert {name: times[name] for name in acknowledged} == dict.fromkeys(acknowledged, 1)
        assert {uid for name, uid in acknowledged.items() if shown.get(uid) != name} == set()
    store = open_store(fleet.state.store)
    verified = verify(store)
    store.close()
    assert (verified.bad, verified.term >= KILLS) == (None, True)


def test_a_call_at_a_follower_stops_waiting_for_a_paused_leader_when_another_one_leads(fleet: LocalFleet) -> None:
    led = leader(fleet)
    other = next(role for role in fleet.servers if role != led)
    headers = {"Authorization": f"Bearer {fleet.token}", "Request-Id": "waiting"}
    fleet.signal(led, signal.SIGSTOP)
    try:
        url = commands.url(fleet.state, other)
        body = gang("waiting", pods=1, gpus=1)
        answer = httpx.post(f"{url}/v1/podgroups", json=body, headers=headers, trust_env=False, timeout=60)
        assert (answer.status_code, answer.json()["reason"]) == (503, "Unavailable")
        assert "leads by now" in answer.json()["detail"]
        with muster.Client(url, fleet.token, retry=RetryRule(60)) as client:
            assert client.submit(body, request_id="waiting").uid
    finally:
        fleet.signal(led, signal.SIGCONT)


def test_a_leader_that_was_paused_acknowledges_nothing_that_the_next_one_does_not_know(fleet: LocalFleet) -> None:
    led = leader(fleet)
    names = [role for role in fleet.servers if role != led]
    others = ",".join(commands.url(fleet.state, role) for role in names)
    fleet.signal(led, signal.SIGSTOP)
    try:
        with muster.Client(others, fleet.token, retry=RetryRule(60)) as client:
            meanwhile = client.submit(gang("meanwhile", pods=1, gpus=1), request_id="meanwhile").uid
    finally:
        fleet.signal(led, signal.SIGCONT)
    with called(fleet, led) as client:
        assert client.submit(gang("meanwhile", pods=1, gpus=1), request_id="meanwhile").uid == meanwhile
        assert client.submit(gang("awake", pods=1, gpus=1)).uid
        until(lambda: client.readiness()["role"] == "following", "it believes that it leads")
        assert {"meanwhile", "awake"} <= set(everything(client).values())
    assert leader(fleet) in names


def readable(client: muster.Client, uid: str) -> bool:
    try:
        client.get_group(uid)
    except muster.NotFoundError:
        return False
    return True


def everything(client: muster.Client) -> dict[str, str]:
    """Names of all groups by uid."""
    found: dict[str, str] = {}
    mark = ""
    while True:
        page = client.list_groups(continue_=mark)
        found |= {view.metadata.uid: view.metadata.name for view in page.items}
        mark = page.metadata.continue_ or ""
        if not mark:
            return found
