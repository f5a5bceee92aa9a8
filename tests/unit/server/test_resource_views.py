"""Rows and records as the API shows them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from federation.core.decisions import decision_view
from federation.core.records import AnyRecord, Bound, Placed, QueueApplied
from federation.core.rows import QueueRow
from federation.server.routes_podgroups import ROLE_CHARS_MAX, Resize
from federation.server.views import group_view, queue_view
from placement.model import Lineage, QueueName
from tests.unit.federation.story import Story

LINEAGE = Lineage("l")


@pytest.mark.parametrize(
    ("record", "token"),
    [
        (Placed(uid="l.1", cluster="c-1", effective_policy="StopAndMove"), "l.16384"),
        (Bound(uid="l.1", token="l.9", cluster="c-1", pods=2), "l.9"),
        (QueueApplied(name="q"), ""),
    ],
    ids=["a placement makes its token", "a verdict names it", "a queue has none"],
)
def test_a_decision_shows_the_token_it_is_about(record: AnyRecord, token: str) -> None:
    assert decision_view(16384, record, lineage=LINEAGE, uid="l.1")["token"] == token


def test_gpus_of_groups_that_take_any_product_are_shown_under_a_name() -> None:
    row = QueueRow(QueueName("q"), gpus_used={"": 8, "A100-80": 4, "*": 12})
    assert queue_view(row)["status"]["gpus_used"] == {"any": 8, "*": 12, "A100-80": 4}


def test_a_resize_names_a_role_of_so_many_characters_and_no_more() -> None:
    assert Resize.model_validate({"role": "r" * ROLE_CHARS_MAX, "count": 1}).role == "r" * 63
    with pytest.raises(ValidationError, match="at most 63 characters"):
        Resize.model_validate({"role": "r" * (ROLE_CHARS_MAX + 1), "count": 1})


def test_why_a_home_ended_is_said_until_there_is_another_one() -> None:
    story = Story()
    story.cluster("c-1")
    uid = story.submit()
    story.place(uid, "c-1")
    story.intend(uid, "suspend")
    story.gave_up(uid, "Released", reasons=("Suspended",))
    assert group_view(story.row(uid))["status"]["reasons"] == ["Suspended"]
    story.intend(uid, "run")
    story.place(uid, "c-1")
    status = group_view(story.row(uid))["status"]
    assert (status["reasons"], status["conditions"][0]["reason"]) == ([], "Placed")
