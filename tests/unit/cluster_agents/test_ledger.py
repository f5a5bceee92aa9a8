"""The ledger as compare-and-swap over one ConfigMap: final give-ups, `landed`, and writes of unknown outcome."""

from typing import Any

import pytest

from cluster_agents.core.calls import Request, Step
from cluster_agents.core.config import LEDGER_ENTRIES_MAX, AgentConfig
from cluster_agents.core.ledger import (
    DROPS_TOGETHER_S,
    Entry,
    Ledger,
    LedgerUnreadableError,
    Page,
    page_configmap,
    read_page,
)


class Cluster:
    """The one ConfigMap, as an API server keeps it."""

    def __init__(self) -> None:
        self.stored: dict[str, Any] | None = None
        self.version = 0

    def carry_out(self, request: Request) -> tuple[int, dict[str, Any]]:
        match request.method:
            case "GET":
                return (200, self.stored) if self.stored else (404, {})
            case "POST" if self.stored is not None:
                return 409, {}
            case "PUT":
                assert request.body is not None
                if self.stored is None:
                    return 404, {}
                if request.body["metadata"]["resourceVersion"] != self.stored["metadata"]["resourceVersion"]:
                    return 409, {}
        assert request.body is not None
        return 200, self.put(request.body)

    def put(self, body: Any) -> dict[str, Any]:
        self.version += 1
        self.stored = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        return self.stored

    def page(self) -> Page:
        assert self.stored is not None
        return read_page(self.stored)


def entry(token: str, verdict: str = "Refused") -> Entry:
    return Entry(uid="l1.1", token=token, verdict=verdict)


def ledger(boot: str = "a") -> Ledger:
    made = Ledger(AgentConfig(cluster="c-1", boot_nonce=boot))
    made.begin(boot)
    return made


def settle(made: Ledger, cluster: Cluster, now_s: float = 0.0) -> list[str]:
    """Carry out what the ledger wants until it wants nothing; the methods used."""
    methods: list[str] = []
    for _ in range(20):
        request = made.next_request(now_s)
        if request is None:
            return methods
        methods.append(request.method)
        status, body = cluster.carry_out(request)
        made.answered(request.step, status, body, now_s)
    raise AssertionError("the ledger never came to rest")


def test_the_first_write_claims_the_ledger_even_when_there_is_nothing_to_record() -> None:
    made, cluster = ledger(), Cluster()
    assert settle(made, cluster) == ["GET", "POST"]
    assert made.claimed
    second = ledger("b")
    assert settle(second, cluster) == ["GET", "PUT"]


def test_a_write_of_the_holder_before_cannot_land_after_the_claim() -> None:
    first, cluster = ledger("a"), Cluster()
    settle(first, cluster)
    first.add(entry("l1.5"))
    late = first.next_request(0.0)
    assert late is not None
    settle(ledger("b"), cluster)
    assert cluster.carry_out(late)[0] == 409
    assert cluster.page().entries == ()


def test_an_entry_counts_only_once_it_is_durable() -> None:
    made, cluster = ledger(), Cluster()
    settle(made, cluster)
    made.add(entry("l1.5"))
    assert not made.has("l1.5")
    settle(made, cluster)
    assert made.has("l1.5")


def test_the_first_give_up_of_a_token_stands() -> None:
    made, cluster = ledger(), Cluster()
    settle(made, cluster)
    made.add(entry("l1.5", "Refused"))
    made.add(entry("l1.5", "Released"))
    settle(made, cluster)
    made.add(entry("l1.5", "Finished"))
    settle(made, cluster)
    assert [one.verdict for one in made.entries()] == ["Refused"]


def test_the_write_that_drops_an_entry_raises_landed() -> None:
    made, cluster = ledger(), Cluster()
    settle(made, cluster)
    made.add(entry("l1.5"))
    settle(made, cluster)
    made.drop("l1.5", "l1", 77, 0.0)
    assert made.has("l1.5")
    assert made.landed_in("l1") == 0
    assert settle(made, cluster, DROPS_TOGETHER_S) == ["PUT"]
    assert not made.has("l1.5")
    assert (made.landed_in("l1"), cluster.page().landed) == (77, 77)


def test_a_drop_waits_a_moment_for_company_and_a_give_up_takes_it_along_at_once() -> None:
    made, cluster = ledger(), Cluster()
    settle(made, cluster)
    made.add(entry("l1.5"))
    settle(made, cluster)
    made.drop("l1.5", "l1", 77, 0.0)
    assert made.wake_at_s() == DROPS_TOGETHER_S
    assert settle(made, cluster, 0.9 * DROPS_TOGETHER_S) == []
    made.add(entry("l1.6"))
    assert settle(made, cluster, 0.9 * DROPS_TOGETHER_S) == ["PUT"]
    assert (made.has("l1.5"), made.has("l1.6"), made.landed_in("l1")) == (False, True, 77)


def test_landed_never_falls_within_a_lineage_and_starts_over_in_a_newer_one() -> None:
    made, cluster = ledger(), Cluster()
    settle(made, cluster)
    for token, lineage, at in (("l1.5", "l1", 77), ("l1.6", "l1", 70), ("l2.3", "l2", 4)):
        made.add(entry(token))
        settle(made, cluster)
        made.drop(token, lineage, at, 0.0)
        settle(made, cluster, DROPS_TOGETHER_S)
        if lineage == "l1":
            assert made.landed_in("l1") == 77
    assert (made.landed_in("l1"), made.landed_in("l2")) == (0, 4)


def test_a_write_of_unknown_outcome_is_recognised_by_its_name_when_read_back() -> None:
    made, cluster = ledger(), Cluster()
    settle(made, cluster)
    made.add(entry("l1.5"))
    request = made.next_request(0.0)
    assert request is not None
    cluster.carry_out(request)  # applied, but the reply is lost
    made.answered(request.step, 0, {}, 0.0)
    assert not made.has("l1.5")
    assert settle(made, cluster, now_s=10.0) == ["GET"]
    assert made.has("l1.5")


def test_a_write_of_unknown_outcome_that_was_not_applied_is_written_again() -> None:
    made, cluster = ledger(), Cluster()
    settle(made, cluster)
    made.add(entry("l1.5"))
    request = made.next_request(0.0)
    assert request is not None
    made.answered(request.step, 0, {}, 0.0)
    assert settle(made, cluster, now_s=10.0) == ["GET", "PUT"]
    assert made.has("l1.5")


def test_what_comes_while_a_write_is_under_way_goes_with_the_next() -> None:
    made, cluster = ledger(), Cluster()
    settle(made, cluster)
    made.add(entry("l1.5"))
    request = made.next_request(0.0)
    assert request is not None
    made.add(entry("l1.6"))
    assert made.next_request(0.0) is None
    status, body = cluster.carry_out(request)
    made.answered(request.step, status, body, 0.0)
    assert (made.has("l1.5"), made.has("l1.6")) == (True, False)
    settle(made, cluster)
    assert made.has("l1.6")


def test_room_is_kept_for_every_group_that_may_yet_be_given_up() -> None:
    made = ledger()
    assert made.room_for(LEDGER_ENTRIES_MAX - 1)
    assert not made.room_for(LEDGER_ENTRIES_MAX)


def test_a_full_ledger_fits_one_configmap() -> None:
    entries = tuple(
        Entry(
            uid=f"1764093600123-a1b2c3.{8192 * n}",
            token=f"1764093600123-a1b2c3.{8192 * n + 5}",
            verdict="Refused",
            reasons=("InsufficientGpus",),
            detail=f"InsufficientGpus: needs {n} GPUs, best is {n % 97} (A100-SXM4-80GB)",
        )
        for n in range(LEDGER_ENTRIES_MAX)
    )
    body = page_configmap(Page(write="a/1", entries=entries), "muster-system")
    packed = body["binaryData"]
    assert isinstance(packed, dict)
    assert len(packed["page"]) < 900_000
    assert len(read_page(body).entries) == LEDGER_ENTRIES_MAX


@pytest.mark.parametrize("page", ["", "!!", "aGVsbG8="])
def test_a_ledger_that_cannot_be_read_is_never_taken_as_empty(page: str) -> None:
    with pytest.raises(LedgerUnreadableError):
        read_page({"binaryData": {"page": page}})
    made = ledger()
    request = made.next_request(0.0)
    assert request is not None
    made.answered(Step.LEDGER_READ, 200, {"binaryData": {"page": page}}, 0.0)
    assert made.unreadable
    assert not made.claimed
    retry = made.next_request(10.0)
    assert retry is not None
    assert retry.method == "GET"


def test_an_entry_that_an_earlier_unknown_write_brought_is_not_written_again_after_it_was_dropped() -> None:
    made, cluster = ledger(), Cluster()
    settle(made, cluster)
    made.add(entry("l1.20"))
    late = made.next_request(0.0)
    assert late is not None
    made.answered(late.step, 0, {}, 0.0)
    read = made.next_request(100.0)
    assert read is not None
    made.answered(read.step, *cluster.carry_out(read), 100.0)
    again = made.next_request(100.0)
    assert again is not None
    assert cluster.carry_out(late)[0] == 200
    made.answered(again.step, 0, {}, 100.0)
    read = made.next_request(200.0)
    assert read is not None
    made.answered(read.step, *cluster.carry_out(read), 200.0)
    assert made.has("l1.20")
    made.drop("l1.20", "l1", 30, 200.0)
    settle(made, cluster, 201.0)
    made.add(entry("l1.21"))
    settle(made, cluster, 300.0)
    assert [one.token for one in cluster.page().entries] == ["l1.21"]
