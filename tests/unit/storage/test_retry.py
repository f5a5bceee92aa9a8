"""Repeating store operations: what was really done is found out, and nothing is repeated without end."""

import pytest

from storage.backends.memory import MemoryStore
from storage.blob import Blob, BlobName, Outcome, Version, Written
from storage.errors import UnavailableError
from storage.retry import Patience, RetryBudget, RetryingReads, RetryingStore
from tests.unit.storage.bench import Fate

NAME = BlobName("leases/l/c-1")


class Unreliable(MemoryStore):
    """Meets the fates it is given, one for each operation, and is well after them."""

    def __init__(self, *fates: Fate) -> None:
        super().__init__()
        self.fates = list(fates)
        self.calls: list[str] = []
        self.meanwhile: bytes | None = None

    def fate(self, call: str) -> Fate:
        self.calls.append(call)
        return self.fates.pop(0) if self.fates else Fate.PLAIN

    def create(self, name: BlobName, data: bytes) -> Written:
        match self.fate("create"):
            case Fate.NOT_DONE:
                return Written(Outcome.UNKNOWN, why="lost")
            case Fate.REPLY_LOST:
                super().create(name, data)
                return Written(Outcome.UNKNOWN)
            case Fate.CONFLICT:
                return Written(Outcome.REFUSED)
            case _:
                return super().create(name, data)

    def replace(self, name: BlobName, data: bytes, version: Version) -> Written:
        match self.fate("replace"):
            case Fate.NOT_DONE:
                return Written(Outcome.UNKNOWN, why="lost")
            case Fate.REPLY_LOST:
                done = super().replace(name, data, version)
                if self.meanwhile is not None and done.version is not None:
                    super().replace(name, self.meanwhile, done.version)
                return Written(Outcome.UNKNOWN)
            case Fate.CONFLICT:
                return Written(Outcome.REFUSED)
            case _:
                return super().replace(name, data, version)

    def get(self, name: BlobName) -> Blob | None:
        if self.fate("get") is not Fate.PLAIN:
            raise UnavailableError("get", name, "no route")
        return super().get(name)


def patient(store: Unreliable, pauses: list[float] | None = None, budget: RetryBudget | None = None) -> RetryingStore:
    return RetryingStore(store, sleep=(pauses if pauses is not None else []).append, budget=budget)


def test_a_create_whose_answer_was_lost_is_found_done() -> None:
    store = Unreliable(Fate.REPLY_LOST)
    answer = patient(store).create(NAME, b"mine")
    stored = MemoryStore.get(store, NAME)
    assert stored is not None
    assert answer == Written(Outcome.DONE, stored.version)
    assert store.calls == ["create", "get"]


@pytest.mark.parametrize("fate", [Fate.NOT_DONE, Fate.CONFLICT], ids=["never arrived", "refused with nothing there"])
def test_a_create_without_effect_is_repeated(fate: Fate) -> None:
    store = Unreliable(fate)
    assert patient(store).create(NAME, b"mine").outcome is Outcome.DONE
    assert store.calls == ["create", "get", "create"]


def test_a_create_of_a_name_that_others_took_is_refused_after_a_look() -> None:
    store = Unreliable()
    store.create(NAME, b"theirs")
    assert patient(store).create(NAME, b"mine") == Written(Outcome.REFUSED)
    assert store.calls == ["create", "create", "get"]


@pytest.mark.parametrize("fate", [Fate.NOT_DONE, Fate.CONFLICT, Fate.REPLY_LOST])
def test_a_replace_ends_as_done_whatever_happens_to_its_first_answer(fate: Fate) -> None:
    store = Unreliable()
    version = store.create(NAME, b"one").version
    assert version is not None
    store.fates = [fate]
    answer = patient(store).replace(NAME, b"two", version)
    stored = MemoryStore.get(store, NAME)
    assert stored is not None
    assert stored.data == b"two"
    assert answer == Written(Outcome.DONE, stored.version)


def test_a_replace_at_an_older_version_is_refused_after_a_look() -> None:
    store = Unreliable()
    version = store.create(NAME, b"one").version
    assert version is not None
    store.replace(NAME, b"theirs", version)
    assert patient(store).replace(NAME, b"mine", version) == Written(Outcome.REFUSED)


def test_a_replace_of_what_is_gone_is_refused() -> None:
    assert patient(Unreliable()).replace(NAME, b"mine", Version("1")) == Written(Outcome.REFUSED)


def test_a_lost_answer_to_a_replace_that_others_have_since_replaced_stays_unknown() -> None:
    store = Unreliable()
    version = store.create(NAME, b"one").version
    assert version is not None
    store.fates, store.meanwhile = [Fate.REPLY_LOST], b"theirs"
    assert patient(store).replace(NAME, b"mine", version) == Written(Outcome.UNKNOWN)


def test_a_read_is_repeated_until_it_is_answered() -> None:
    store = Unreliable(Fate.NOT_DONE, Fate.NOT_DONE)
    assert patient(store).get(NAME) is None
    assert store.calls == ["get"] * 3


def test_five_attempts_are_made_and_the_last_reason_is_told() -> None:
    store = Unreliable(*[Fate.NOT_DONE] * 9)
    with pytest.raises(UnavailableError, match="no route"):
        patient(store).get(NAME)
    assert store.calls == ["get"] * 5


def test_a_write_that_never_works_ends_as_unknown() -> None:
    store = Unreliable(*[Fate.NOT_DONE, Fate.PLAIN] * 5)
    answer = patient(store).create(NAME, b"mine")
    assert (answer.outcome, answer.why) == (Outcome.UNKNOWN, "lost")
    assert store.calls == ["create", "get"] * 5


def test_pauses_are_drawn_below_a_limit_that_doubles() -> None:
    pauses: list[float] = []
    store = RetryingStore(
        Unreliable(*[Fate.NOT_DONE] * 4), patience=Patience(pause_first_s=1.0, pause_max_s=3.0), sleep=pauses.append
    )
    store.get(NAME)
    assert [pause <= limit for pause, limit in zip(pauses, (1.0, 2.0, 3.0, 3.0), strict=True)] == [True] * 4
    assert len(set(pauses)) == 4


def test_nothing_is_repeated_after_the_deadline() -> None:
    store = Unreliable(*[Fate.NOT_DONE] * 4)
    with pytest.raises(UnavailableError):
        RetryingStore(store, patience=Patience(deadline_s=0.0), sleep=lambda _: None).get(NAME)
    assert store.calls == ["get"]


def test_a_spent_budget_stops_retries_and_requests_earn_it_back() -> None:
    budget = RetryBudget(share=0.5, burst=2.0)
    assert [budget.take() for _ in range(3)] == [True, True, False]
    store = Unreliable(Fate.NOT_DONE)
    with pytest.raises(UnavailableError):
        patient(store, budget=budget).get(NAME)
    store.fates = [Fate.NOT_DONE]
    assert patient(store, budget=budget).get(NAME) is None


def test_a_budget_saves_up_no_more_than_its_burst() -> None:
    budget = RetryBudget(share=0.5, burst=2.0)
    for _ in range(10):
        budget.earn()
    assert [budget.take() for _ in range(3)] == [True, True, False]


def test_a_server_repeats_reads_and_leaves_writes_to_its_cores() -> None:
    store = Unreliable(Fate.NOT_DONE, Fate.NOT_DONE, Fate.NOT_DONE)
    pauses: list[float] = []
    reads = RetryingReads(store, sleep=pauses.append)
    assert reads.create(NAME, b"mine") == Written(Outcome.UNKNOWN, why="lost")
    assert reads.get(NAME) is None
    assert store.calls == ["create", "get", "get", "get"]
    assert len(pauses) == 2
    assert all(0 <= pause_s <= limit_s for pause_s, limit_s in zip(pauses, (0.05, 0.1), strict=True))


def test_a_server_gives_a_read_up_after_five_attempts() -> None:
    store = Unreliable(*[Fate.NOT_DONE] * 5)
    with pytest.raises(UnavailableError):
        RetryingReads(store, sleep=lambda _: None).get(NAME)
    assert store.calls == ["get"] * 5
