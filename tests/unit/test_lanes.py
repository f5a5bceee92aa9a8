"""How the integration lane is shared out fits the modules that there are."""

from __future__ import annotations

import re

import pytest

from tests.documents import ROOT
from tests.integration.conftest import APART

FOLDER = ROOT / "tests" / "integration"
SHARES = re.compile(r'scope="(?:module|package|session)"|def test_\w+\([^)]*\bserver: ')


@pytest.mark.parametrize("name", APART)
def test_a_module_whose_tests_go_to_any_worker_has_nothing_that_they_share(name: str) -> None:
    assert SHARES.findall((FOLDER / f"{name}.py").read_text()) == []


def test_what_is_shared_is_noticed() -> None:
    assert SHARES.search((FOLDER / "test_cli.py").read_text())
    assert SHARES.search((FOLDER / "test_server_api.py").read_text())
