"""What people see, letter by letter. The files under golden/ are the expectation."""

from pathlib import Path

import pytest

from tests.unit.cli.conftest import Muster

GOLDEN = Path(__file__).parent / "golden"


def golden(name: str) -> str:
    return (GOLDEN / f"{name}.txt").read_text()


@pytest.mark.parametrize("form", ["table", "wide", "json", "yaml", "name"])
@pytest.mark.parametrize("noun", ["podgroups", "clusters", "queues"])
def test_listing(muster: Muster, noun: str, form: str) -> None:
    shown = muster("get", noun, "-o", form)
    assert (shown.code, shown.out, shown.err) == (0, golden(f"get-{noun}-{form}"), "")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("describe-podgroup", ("describe", "train")),
        ("describe-podgroup", ("describe", "pg", "train")),
        ("describe-podgroup", ("describe", "podgroup/train")),
        ("describe-cluster", ("describe", "cluster", "c-1")),
        ("describe-queue", ("describe", "q/research")),
        ("top", ("top",)),
        ("top-json", ("top", "-o", "json")),
        ("explain", ("explain", "tune")),
        ("explain", ("explain", "pg/tune")),
        ("history", ("history", "train")),
        ("history-wide", ("history", "train", "-o", "wide")),
    ],
)
def test_page(muster: Muster, name: str, arguments: tuple[str, ...]) -> None:
    shown = muster(*arguments)
    assert (shown.code, shown.out, shown.err) == (0, golden(name), "")
