"""What the log says of one record, in a line."""

from __future__ import annotations

from typing import Any

import pytest

from federation.core.decisions import summary
from federation.core.records import GaveUp


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        pytest.param(
            {"verdict": "Refused", "reasons": ("TemplateRefused",), "detail": "exceeded quota: q"},
            "Refused by c-1: TemplateRefused (exceeded quota: q)",
            id="what its API server said",
        ),
        pytest.param(
            {"verdict": "Refused", "reasons": ("NoRoom", "Tainted")}, "Refused by c-1: NoRoom, Tainted", id="reasons"
        ),
        pytest.param({"verdict": "Released", "detail": "moved"}, "Released by c-1: (moved)", id="no reasons"),
        pytest.param({"verdict": "Finished", "succeeded": True}, "Finished by c-1: succeeded", id="an end"),
        pytest.param(
            {"verdict": "Finished", "late": True}, "Finished by c-1: failed (late: its home had ended)", id="a late end"
        ),
    ],
)
def test_who_gives_a_group_up_says_why(fields: dict[str, Any], said: str) -> None:
    record = GaveUp(actor="agent:c-1", at_ms=1, uid="L.1", token="L.2", cluster="c-1", **fields)
    assert summary(record) == said
