"""What an agent keeps of the groups that run in its cluster, and what it tells a fleet that lost them."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from typing import Any

import pytest

from cluster_agents.core import claiming
from cluster_agents.core.claiming import Claiming
from cluster_agents.core.config import AgentConfig
from cluster_agents.core.plan import INTENT_BYTES_MAX, Intent, Plan, PlanRole, intent_configmap, read_intent
from cluster_agents.core.spec import Spec, read_spec
from federation.protocol.messages import CLAIMS_BYTES_MAX, CLAIMS_MAX, Claim, ClaimsAnswer, encode_message
from tests.unit.cluster_agents.rig import CLUSTER, FAST, Rig

CONFIG = AgentConfig(cluster=CLUSTER, boot_nonce="b")


def running(rig: Rig, *, pods: int = 2, **fields: Any) -> tuple[str, str]:
    """A group of a server that says where it came from; its token and uid."""
    token = rig.federation.place(pods=pods, **fields)
    uid = rig.federation.homes[token].uid
    rig.federation.origins[uid] = f"origin of {uid}".encode()
    rig.run(token)
    return token, uid


def plan(uid: str = "l1.1", *, nodes: int = 1) -> Plan:
    return Plan(
        uid=uid,
        token=f"l1.{int(uid.rpartition('.')[2]) + 100}",
        namespace="default",
        name="train",
        workload="pods",
        policy="StopAndMove",
        disruption_mode="single",
        min_count=1,
        grace_s=30,
        spec_digest="d",
        roles=(PlanRole("worker", nodes, nodes, 1, 0, 0),),
        nodes=tuple(f"n-{number:05d}" for number in range(nodes)),
    )


def spec_of(packed: bytes, origin: bytes = b"o") -> Spec:
    read = read_spec(zlib.compress(b'{"name":"train","roles":[{"name":"worker","count":1,"template":{}}]}'))
    assert isinstance(read, Spec)
    return Spec(read.group, read.request, packed, origin)


def intent(uid: str, size: int = 10) -> Intent:
    return Intent(plan(uid), False, base64.b64encode(b"s" * size).decode(), base64.b64encode(b"o").decode())


def size_of(configmap: Mapping[str, Any]) -> int:
    plain = sum(len(value) for value in configmap["data"].values())
    return plain + sum(len(base64.b64decode(value)) for value in configmap.get("binaryData", {}).values())


# --- what is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("along", [True, False], ids=["with-desired-state", "asked-for"])
def test_the_intent_keeps_what_the_group_was_made_from_without_one_call_more(*, along: bool) -> None:
    rig, older = Rig().ready(), Rig().ready()
    rig.federation.sends_specs = older.federation.sends_specs = along
    token, uid = running(rig)
    older.run(older.federation.place(pods=2))
    assert rig.agent._books.intents[token].claim() == Claim(uid, rig.federation.specs[uid], b"origin of l1.1")
    assert [(call.method, call.path.rpartition("/")[0]) for call in rig.calls] == [
        (call.method, call.path.rpartition("/")[0]) for call in older.calls
    ]


def test_an_intent_as_large_as_may_be_keeps_the_manifest_and_one_byte_more_goes_without() -> None:
    taken = len(str(intent_configmap(plan(nodes=5), None, "n")["data"]["plan"])) + len(b"o")  # type: ignore[index]
    fits = intent_configmap(plan(nodes=5), spec_of(b"s" * (INTENT_BYTES_MAX - taken)), "n")
    assert size_of(fits) == INTENT_BYTES_MAX + len("false")
    assert size_of(fits) < 1024 * 1024
    found = read_intent(fits)
    assert found is not None
    assert found.claim().origin == b"o"
    beyond = intent_configmap(plan(nodes=5), spec_of(b"s" * (INTENT_BYTES_MAX - taken + 1)), "n")
    assert "binaryData" not in beyond
    found = read_intent(beyond)
    assert found is not None
    assert found.spec == ""


def test_a_manifest_whose_origin_the_server_did_not_tell_is_not_kept() -> None:
    assert "binaryData" not in intent_configmap(plan(), spec_of(b"s", b""), "n")


# --- what is told -----------------------------------------------------------------------------------------------------


def test_a_fleet_that_recovers_is_told_what_it_asks_for_and_nothing_else() -> None:
    rig = Rig().ready()
    (_, one), (_, two) = running(rig), running(rig)
    rig.federation.recover()
    rig.federation.wanted = [two]
    rig.advance(FAST.renew_s + 5)
    assert rig.federation.claimed() == {two: Claim(two, rig.federation.specs[two], f"origin of {two}".encode())}
    assert one not in rig.federation.claimed()
    assert rig.reports[-1].keeps_records


def test_an_agent_that_was_started_anew_tells_what_it_finds_in_its_cluster() -> None:
    rig = Rig().ready()
    _, uid = running(rig)
    rig.federation.recover()
    rig.federation.wanted = [uid]
    rig.restart()
    rig.advance(30.0)
    assert rig.federation.claimed()[uid].spec == rig.federation.specs[uid]


def test_of_a_group_whose_record_was_not_kept_it_says_so() -> None:
    rig = Rig().ready()
    token = rig.federation.place(pods=2)
    uid = rig.federation.homes[token].uid
    rig.run(token)
    rig.federation.recover()
    rig.federation.wanted = [uid]
    rig.advance(FAST.renew_s + 5)
    assert rig.federation.claimed() == {uid: Claim(uid)}


def test_nothing_is_claimed_from_a_fleet_that_does_not_recover() -> None:
    rig = Rig().ready()
    running(rig)
    rig.advance(30.0)
    assert rig.federation.asked["Claims"] == 0
    assert not rig.reports[-1].keeps_records


def test_the_pods_of_a_group_that_is_known_again_are_left_alone() -> None:
    rig = Rig().ready()
    token, _ = running(rig)
    pods = {(pod["metadata"]["name"], pod["metadata"]["uid"]) for pod in rig.pods(token)}
    rig.federation.recover()
    rig.advance(FAST.renew_s + 5)
    rig.federation.change(token, policy="HoldInPlace", bound=True)
    rig.federation.admit()
    rig.advance(FAST.renew_s + 30)
    assert {(pod["metadata"]["name"], pod["metadata"]["uid"]) for pod in rig.pods(token)} == pods
    assert len(rig.live(token)) == 2


def test_the_journal_that_goes_on_is_told_again_what_runs() -> None:
    rig = Rig().ready()
    token, _ = running(rig)
    assert rig.federation.heard(token) == ["Bound", "Running"]
    rig.federation.recover()
    rig.advance(FAST.renew_s + 5)
    rig.federation.verdicts.clear()
    rig.federation.lineage = "l2"
    rig.federation.admit()
    rig.advance(FAST.renew_s + 30)
    assert rig.federation.heard(token) == ["Running"]


def test_a_claim_holds_so_many_groups_and_the_next_one_the_rest() -> None:
    wanted = tuple(f"l1.{number}" for number in range(CLAIMS_MAX + 1))
    ours = Claiming(CONFIG)
    ours.ask(0.0, 1, [])
    assert ours.answered(ClaimsAnswer(ask_id=1, wanted=wanted))
    assert ours.due_s <= 0.0
    asked = ours.ask(0.1, 2, [intent(uid) for uid in wanted])
    assert [claim.uid for claim in asked.groups] == list(wanted[:CLAIMS_MAX])
    assert ours.due_s == pytest.approx(0.1 + claiming.CLAIM_EVERY_S)


def test_a_claim_holds_so_many_bytes_and_a_group_that_is_larger_goes_alone() -> None:
    ours = Claiming(CONFIG)
    half = CLAIMS_BYTES_MAX // 2 - len("l1.1") - len(b"o")
    for sizes, told in (((half, half), 2), ((half, half + 1), 1), ((CLAIMS_BYTES_MAX + 1, 1), 1)):
        uids = tuple(f"l1.{number}" for number, _ in enumerate(sizes, 1))
        ours.ask(0.0, 1, [])
        ours.answered(ClaimsAnswer(ask_id=1, wanted=uids))
        asked = ours.ask(0.0, 2, [intent(uid, size) for uid, size in zip(uids, sizes, strict=True)])
        assert len(asked.groups) == told
        assert len(encode_message(asked)) < 512 * 1024


def test_an_answer_that_comes_twice_or_late_is_no_news() -> None:
    ours = Claiming(CONFIG)
    ours.ask(0.0, 1, [])
    assert not ours.answered(ClaimsAnswer(ask_id=1))
    assert not ours.answered(ClaimsAnswer(ask_id=7, wanted=("l1.1",)))
    assert ours.answered(ClaimsAnswer(ask_id=1, wanted=("l1.1",)))
    assert not ours.answered(ClaimsAnswer(ask_id=1, wanted=("l1.1",)))


def test_what_cannot_be_read_in_an_intent_is_no_record() -> None:
    assert Intent(plan(), False, "%%%", "bz8=").claim() == Claim("l1.1")
