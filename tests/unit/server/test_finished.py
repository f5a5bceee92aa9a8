"""Archived groups as readers get them: by uid, by name, page by page; from memory, from parts, or not at all."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from federation.core import archive, books
from federation.core.archive import archived, next_part
from federation.core.replica import Replica, ReplicaConfig
from federation.core.rows import GroupRow
from federation.server import finished
from federation.server.app import Service, make_app
from federation.server.feed import Feed
from federation.server.finished import FinishedGroups
from federation.server.loop import ReplicaLoop
from federation.server.metrics import Metrics
from federation.server.problems import ProblemError
from federation.server.tokens import Principal, Principals, Verb
from storage.backends.memory import MemoryStore
from storage.finished import part_name
from tests.unit.federation.story import Story

TOKEN = "a-token-for-tests"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "PART_ROWS_MAX", 2)
    monkeypatch.setattr(books, "FINISHED_KEPT_MAX", 1)


def old(*names: str) -> tuple[Story, MemoryStore]:
    """Groups that ended in this order: the last is in memory, up to two more wait, the others are in parts of two."""
    story, store = Story(), MemoryStore()
    for name in names:
        uid = story.submit(name, labels={"team": name[0]}, request_id=f"{name}-{story.seq}")
        story.intend(uid, "cancel")
    while len(story.state.leaving) > 2:
        number, data = story.state.parts_count + 1, next_part(story.state)
        store.create(part_name(number), data)
        story.record(archived(number, data, at_ms=story.at_ms, actor="muster:archive"))
    return story, store


def groups(story: Story, store: MemoryStore) -> FinishedGroups:
    return FinishedGroups(store, lambda: story.state)


def find(story: Story, store: MemoryStore, ref: str, namespace: str = "default") -> GroupRow | None:
    return asyncio.run(groups(story, store).find(ref, namespace))


def names(story: Story, store: MemoryStore, limit: int, matches: Callable[[GroupRow], bool]) -> list[list[str]]:
    """Page by page."""

    async def pages() -> list[list[str]]:
        reader, found, mark = groups(story, store), list[list[str]](), 0
        while True:
            page = await reader.page(mark, limit, matches)
            found.append([row.name for row in page.rows])
            mark = page.mark
            if not mark:
                return found

    return asyncio.run(pages())


def test_a_group_is_found_by_uid_and_by_name_wherever_it_is() -> None:
    story, store = old("a", "b", "c", "d", "e")
    for name in ("a", "b", "c", "d"):
        row = find(story, store, name)
        assert row is not None
        assert row.name == name
        assert find(story, store, row.uid) == row
    assert find(story, store, "e") is None
    assert find(story, store, "a", namespace="other") is None


def test_of_groups_with_one_name_the_newest_is_found() -> None:
    story, store = old("a", "a", "a", "b", "c", "d")
    row = find(story, store, "a")
    assert row is not None
    assert row.submitted_at == max(one.submitted_at for one in asyncio.run(_all(story, store)) if one.name == "a")


async def _all(story: Story, store: MemoryStore) -> list[GroupRow]:
    return (await groups(story, store).page(0, 1_000, lambda row: True)).rows


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_pages_hold_every_group_once_newest_first(limit: int) -> None:
    story, store = old(*"abcdefgh")
    assert [name for page in names(story, store, limit, lambda row: True) for name in page] == list("gfedcba")


def test_a_page_reads_a_bounded_number_of_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finished, "PARTS_PER_PAGE_MAX", 2)
    story, store = old(*"abcdefgh")
    assert names(story, store, 100, lambda row: row.name == "a") == [[], ["a"]]


def test_parts_in_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finished, "PARTS_IN_MEMORY_MAX", 1)
    story, store = old(*"abcdefgh")
    reader = groups(story, store)
    asyncio.run(reader.page(0, 100, lambda row: True))
    assert len(reader._read) == 1


def test_a_part_that_a_rule_of_the_bucket_deleted_is_passed_over() -> None:
    story, store = old(*"abcdefgh")
    store.delete(part_name(1))
    assert find(story, store, "a") is None
    assert names(story, store, 100, lambda row: True) == [list("gfedc")]


def test_a_damaged_part_is_an_error_that_names_it() -> None:
    story, store = old(*"abcdefgh")
    blob = store.get(part_name(1))
    assert blob is not None
    store.replace(part_name(1), blob.data[:-1] + b"?", blob.version)
    with pytest.raises(ProblemError) as caught:
        find(story, store, "a")
    assert (caught.value.status, caught.value.reason) == (500, "DamagedArchive")
    assert part_name(1) in caught.value.detail


async def _get(story: Story, store: MemoryStore, *paths: str) -> list[tuple[int, Any]]:
    replica = Replica(ReplicaConfig(name="s-1", seed=1))
    replica.state = story.state
    caller = Principal("sara", frozenset({Verb.VIEW}))
    principals = Principals({hashlib.sha256(TOKEN.encode()).digest(): caller})
    loop = ReplicaLoop(replica, store, Feed())
    app = make_app(Service(loop, Feed(), principals, Metrics()))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://s", headers=headers) as client:
        answers = [await client.get(path) for path in paths]
    return [(answer.status_code, answer.json()) for answer in answers]


def test_the_api_reads_explains_and_tells_the_history_of_an_archived_group() -> None:
    story, store = old("a", "b", "c", "d", "e")
    (_, group), (_, why), (_, lines), (status, _) = asyncio.run(
        _get(
            story,
            store,
            "/v1/podgroups/a",
            "/v1/podgroups/a/explain",
            "/v1/podgroups/a/history",
            "/v1/podgroups/nobody",
        )
    )
    assert group["status"]["phase"] == "Cancelled"
    assert (why["phase"], why["summary"]) == ("Cancelled", "ended: Cancelled")
    assert [item["kind"] for item in lines["items"]] == ["Submitted", "IntentSet"]
    assert status == 404


def test_the_api_lists_the_archive_with_its_filters() -> None:
    story, store = old("a", "b", "c", "d", "e")
    (_, page), (_, some), (_, here) = asyncio.run(
        _get(
            story,
            store,
            "/v1/podgroups?archived=true&limit=3",
            "/v1/podgroups?archived=true&label=team=b&phase=cancelled",
            "/v1/podgroups",
        )
    )
    assert [item["metadata"]["name"] for item in page["items"]] == ["d", "c", "b"]
    ((_, rest),) = asyncio.run(
        _get(story, store, f"/v1/podgroups?archived=true&continue={page['metadata']['continue']}")
    )
    assert [item["metadata"]["name"] for item in rest["items"]] == ["a"]
    assert rest["metadata"]["continue"] == ""
    assert [item["metadata"]["name"] for item in some["items"]] == ["b"]
    assert [item["metadata"]["name"] for item in here["items"]] == ["e"]


def test_a_phase_that_does_not_exist_is_refused_rather_than_found_empty() -> None:
    story, store = old("a")
    ((status, shown),) = asyncio.run(_get(story, store, "/v1/podgroups?phase=Runing"))
    assert (status, shown["reason"], shown["field"]) == (422, "BadValue", "phase")
    assert "'Runing' is none of Pending, Placed, Binding" in shown["detail"]
