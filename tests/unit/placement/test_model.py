"""What people may write, at each limit and one beyond it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from placement.model import (
    ClusterChoice,
    GpuRequest,
    Level,
    Lineage,
    Phase,
    PodGroup,
    Position,
    Queue,
    Reason,
    Role,
    Token,
    Topology,
    group_uid,
    labels_match,
)
from tests.builders import pod_group

TEMPLATE: dict[str, Any] = {"spec": {"containers": []}}


def roles(number: int, *, count: int = 1) -> list[dict[str, Any]]:
    return [{"name": f"r{index}", "count": count, "template": TEMPLATE} for index in range(number)]


def labels(number: int) -> dict[str, str]:
    return {f"label-{index}": "x" for index in range(number)}


WITHIN = {
    "name of 63 characters": {"name": "a" * 63},
    "one role of 10,000 pods": {"roles": roles(1, count=10_000)},
    "two roles of 10,000 pods in all": {"roles": roles(2, count=5_000)},
    "32 roles": {"roles": roles(32)},
    "64 labels": {"labels": labels(64)},
    "label value of 63 characters": {"labels": {"team": "v" * 63}},
    "label key of prefix 253 and name 63": {"labels": {f"{'p' * 253}/{'k' * 63}": "x"}},
    "grace of 600 s": {"grace_s": 600},
    "grace of 0 s": {"grace_s": 0},
    "priority of a thousand million": {"priority": 1_000_000_000},
    "priority of minus a thousand million": {"priority": -1_000_000_000},
    "a year of run time": {"max_run_s": 366 * 24 * 3_600},
    "min_count equal to the sum": {"roles": roles(2, count=4), "min_count": 8},
    "64 data sets": {"data": [{"name": f"d{index}"} for index in range(64)]},
    "64 affinity labels": {"clusters": {"affinity": {f"label-{index}": ["x"] for index in range(64)}}},
    "64 values of one affinity label": {"clusters": {"affinity": {"zone": [f"v{index}" for index in range(64)]}}},
    "topology key of 317 characters": {"topology": {"required": "t" * 317}},
}

BEYOND = {
    "name of 64 characters": {"name": "a" * 64},
    "empty name": {"name": ""},
    "one role of 10,001 pods": {"roles": roles(1, count=10_001)},
    "two roles of 10,002 pods in all": {"roles": roles(2, count=5_001)},
    "role without pods": {"roles": roles(1, count=0)},
    "no roles": {"roles": []},
    "33 roles": {"roles": roles(33)},
    "65 labels": {"labels": labels(65)},
    "label value of 64 characters": {"labels": {"team": "v" * 64}},
    "label key of prefix 254": {"labels": {f"{'p' * 254}/k": "x"}},
    "label key of name 64": {"labels": {"k" * 64: "x"}},
    "grace of 601 s": {"grace_s": 601},
    "grace of -1 s": {"grace_s": -1},
    "priority above a thousand million": {"priority": 1_000_000_001},
    "priority below minus a thousand million": {"priority": -1_000_000_001},
    "more than a year of run time": {"max_run_s": 366 * 24 * 3_600 + 1},
    "min_count above the sum": {"roles": roles(2, count=4), "min_count": 9},
    "min_count of 0": {"min_count": 0},
    "65 data sets": {"data": [{"name": f"d{index}"} for index in range(65)]},
    "65 affinity labels": {"clusters": {"affinity": {f"label-{index}": ["x"] for index in range(65)}}},
    "65 values of one affinity label": {"clusters": {"affinity": {"zone": [f"v{index}" for index in range(65)]}}},
    "topology key of 318 characters": {"topology": {"required": "t" * 318}},
    "unknown field": {"colour": "blue"},
    "unknown disconnect policy": {"disconnect_policy": "Hope"},
    "two roles of one name": {"roles": [*roles(1), *roles(1)]},
    "name with capitals": {"name": "Train"},
    "name ending in a dash": {"name": "train-"},
    "name ending in a line feed": {"name": "train\n"},
    "label value ending in a line feed": {"labels": {"team": "red\n"}},
    "unknown workload": {"workload": "deployment"},
}


@pytest.mark.parametrize("fields", WITHIN.values(), ids=WITHIN.keys())
def test_pod_group_at_its_limit_is_accepted(fields: dict[str, Any]) -> None:
    assert pod_group(**fields).namespace == "default"


@pytest.mark.parametrize("fields", BEYOND.values(), ids=BEYOND.keys())
def test_pod_group_beyond_a_limit_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        pod_group(**fields)


@pytest.mark.parametrize("value", [True, "4", 4.0], ids=["a boolean", "a text", "a float"])
def test_count_must_be_written_as_a_whole_number(value: object) -> None:
    with pytest.raises(ValidationError):
        Role.model_validate({"template": TEMPLATE, "count": value})


def test_role_min_count_above_its_count_is_refused() -> None:
    with pytest.raises(ValidationError, match="min_count 5 is above count 4"):
        Role(template=TEMPLATE, count=4, min_count=5)


def test_sixteen_products_are_accepted_and_seventeen_are_not() -> None:
    assert len(Role(template=TEMPLATE, products=tuple(f"p{index}" for index in range(16))).products) == 16
    with pytest.raises(ValidationError):
        Role(template=TEMPLATE, products=tuple(f"p{index}" for index in range(17)))


@pytest.mark.parametrize(
    ("fields", "accepted"),
    [
        ({"whole": 16}, True),
        ({"whole": 17}, False),
        ({"milli": 1000}, True),
        ({"milli": 1001}, False),
        ({"mig": "3g.40gb"}, True),
        ({"mig": "1g.5gb+me"}, True),
        ({"mig": "7g.80gb"}, True),
        ({"mig": "8g.80gb"}, False),
        ({"mig": "3g40gb"}, False),
        ({"mig": "3g.40gb\n"}, False),
        ({"whole": 1, "milli": 500}, False),
        ({"milli": 500, "mig": "3g.40gb"}, False),
        ({"whole": -1}, False),
    ],
    ids=str,
)
def test_gpu_request_is_one_kind_within_its_limits(fields: dict[str, Any], *, accepted: bool) -> None:
    if accepted:
        assert GpuRequest.model_validate(fields).model_dump(exclude_defaults=True) == fields
    else:
        with pytest.raises(ValidationError):
            GpuRequest.model_validate(fields)


def test_what_people_wrote_never_changes() -> None:
    with pytest.raises(ValidationError):
        pod_group().name = "other"


def test_pod_group_counts_the_pods_of_all_roles() -> None:
    assert pod_group(roles=roles(3, count=5)).pods == 15


def test_pod_group_survives_a_round_trip_through_json() -> None:
    group = pod_group(pods=3, labels={"team": "red"}, topology=Topology(required=Level.CLIQUE))
    assert PodGroup.model_validate_json(group.model_dump_json()) == group


def test_lease_class_that_nobody_offers_is_refused() -> None:
    with pytest.raises(ValidationError):
        ClusterChoice.model_validate({"lease_classes": ["hasty"]})


def test_queue_quota_may_be_zero_but_not_negative() -> None:
    assert Queue(name="red", gpu_quota={"*": 0}).gpu_quota == {"*": 0}
    with pytest.raises(ValidationError):
        Queue(name="red", gpu_quota={"*": -1})


def test_token_is_read_back_from_its_text() -> None:
    token = Token(Lineage("1790000000000-ab.c"), Position(8193))
    assert str(token) == "1790000000000-ab.c.8193"
    assert Token.parse(str(token)) == token


@pytest.mark.parametrize(
    "text", ["", "8193", ".8193", "lineage.", "lineage.x", "lineage.-1", "lineage.\u0663", "lineage.07"]
)
def test_text_that_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not <lineage>"):
        Token.parse(text)


def test_tokens_of_one_lineage_are_ordered_by_position_as_numbers() -> None:
    assert Token(Lineage("a"), Position(9)) < Token(Lineage("a"), Position(10))


def test_uid_says_where_the_submission_stands() -> None:
    assert group_uid(Lineage("a"), Position(8192)) == "a.8192"


def test_every_reason_is_found_by_its_code() -> None:
    assert [Reason.of(reason.code) for reason in Reason] == list(Reason)
    assert Reason.of("ReasonOfANewerVersion") is None


def test_severities_differ_so_that_the_order_of_reasons_is_total() -> None:
    severities = [reason.severity for reason in Reason]
    assert len(set(severities)) == len(severities)


def test_terminal_phases_are_those_that_nothing_follows() -> None:
    terminal = {phase for phase in Phase if phase.terminal}
    assert terminal == {Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED}


def test_label_without_an_accepted_value_does_not_match() -> None:
    wanted = (("region", ("eu", "us")), ("cloud", ("a",)))
    assert labels_match({"region": "us", "cloud": "a"}, wanted)
    assert not labels_match({"region": "asia", "cloud": "a"}, wanted)
    assert not labels_match({"region": "us"}, wanted)
