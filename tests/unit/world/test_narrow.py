"""The small limits are those of the product, and are smaller."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.world.narrow import NARROW, narrowed

LARGER = {
    ("cluster_agents.core.desired", "PARTS_MAX"),
    ("federation.core.snapshots", "STEP_EVERY_S"),
    ("federation.protocol.parts", "PARTS_MAX"),
}


@pytest.mark.parametrize("module", NARROW)
def test_each_is_a_limit_of_its_module_and_smaller_there(module: str) -> None:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    limits = vars(importlib.import_module(module))
    assert {name for name, limit in NARROW[module].items() if not limit < limits[name]} == {
        name for owner, name in LARGER if owner == module
    }
    lines = narrowed(Path(spec.origin).read_text(encoding="utf-8"), NARROW[module]).splitlines()
    for name, limit in NARROW[module].items():
        assert lines.count(f"{name}: Final = {limit}") == 1


def test_a_limit_that_is_not_there_is_missed() -> None:
    with pytest.raises(AssertionError, match="ROOM_MAX is there 0 times"):
        narrowed("ROOMY_MAX: Final = 3\n", {"ROOM_MAX": 1})
