"""Tables, ages and lists as text."""

import pytest

from federation.cli.errors import CliError
from federation.cli.options import Duration, labels_of, named
from federation.cli.output import age, aligned, duration, widths_of

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000


@pytest.mark.parametrize(
    ("ms", "shown"),
    [
        (-5 * SECOND, "0s"),
        (999, "0s"),
        (119 * SECOND, "119s"),
        (2 * MINUTE, "2m"),
        (3 * MINUTE + 20 * SECOND, "3m20s"),
        (10 * MINUTE + 20 * SECOND, "10m"),
        (179 * MINUTE, "179m"),
        (3 * HOUR, "3h"),
        (7 * HOUR + 59 * MINUTE, "7h59m"),
        (8 * HOUR + 59 * MINUTE, "8h"),
        (47 * HOUR, "47h"),
        (2 * DAY, "2d"),
        (3 * DAY + 4 * HOUR, "3d4h"),
        (9 * DAY + 4 * HOUR, "9d"),
    ],
)
def test_ages_read_like_kubectls(ms: int, shown: str) -> None:
    assert age(1_000_000, 1_000_000 + ms) == shown


def test_an_age_that_was_never_measured_is_none() -> None:
    assert (duration(None), duration(0.4), duration(125.0)) == ("<none>", "0s", "2m5s")


def test_columns_are_as_wide_as_their_widest_cell_and_nothing_trails() -> None:
    assert aligned([["A", "B", "C"], ["long", "", "x\ny"]]) == "A      B   C\nlong       x y\n"
    assert aligned([]) == ""


def test_rows_that_come_later_stand_under_their_headers() -> None:
    assert aligned([["a", "b"]], least=[4, 2]) == "a      b\n"
    assert widths_of([["longer", "b"]], least=[4, 2]) == [6, 2]


def test_label_selectors_may_be_joined_or_repeated() -> None:
    assert labels_of(("a=1,b==2", "c=")) == {"a": "1", "b": "2", "c": ""}


@pytest.mark.parametrize(("ref", "name"), [("train", "train"), ("podgroup/train", "train"), ("l.8192", "l.8192")])
def test_references_may_carry_their_kind(ref: str, name: str) -> None:
    assert named(ref, "podgroup", "pg") == name


@pytest.mark.parametrize("ref", ["cluster/c-1", "podgroup/", "/train"])
def test_a_reference_to_another_kind_is_refused(ref: str) -> None:
    with pytest.raises(CliError, match="does not name a podgroup"):
        named(ref, "podgroup", "pg")


@pytest.mark.parametrize(("text", "seconds"), [("90", 90.0), ("90s", 90.0), ("1.5m", 90.0), ("2h", 7200.0), (3.0, 3.0)])
def test_durations(text: object, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds
