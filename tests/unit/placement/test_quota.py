"""What a gang is charged, line by line."""

from __future__ import annotations

import pytest

from placement.model import GangRequest, QueueName
from placement.quota import QuotaLine, charge, gpus_charged, quota_refusal
from tests.builders import request, role

CHARGES = {
    "a named product": (request(role(pods=2, products=("A100",))), {"A100": 16, "H100": 0, "*": 16}),
    "either of two products": (request(role(pods=2, products=("A100", "H100"))), {"A100": 16, "H100": 16, "*": 16}),
    "any product": (request(role(pods=2)), {"A100": 16, "H100": 16, "*": 16}),
    "two roles": (
        request(role("x", gpus=1, products=("A100",)), role("y", pods=3, gpus=2, products=("H100",))),
        {"A100": 1, "H100": 6, "*": 7},
    ),
    "no GPUs": (request(role(gpus=0)), {"A100": 0, "H100": 0, "*": 0}),
}


@pytest.mark.parametrize(("asked", "charged"), CHARGES.values(), ids=CHARGES.keys())
def test_gang_is_charged_to_every_product_it_may_run_on(asked: GangRequest, charged: dict[str, int]) -> None:
    assert {product: gpus_charged(asked, product) for product in charged} == charged


def test_every_line_that_would_be_passed_is_named() -> None:
    lines = {"A100": QuotaLine(8, used=4), "*": QuotaLine(100, used=95), "H100": QuotaLine(8)}
    found = quota_refusal(request(role(products=("A100",))), QueueName("red"), lines)
    assert [str(one) for one in found] == [
        "QuotaExhausted: needs 8 GPUs, best is 5 (queue red: limit 100, used 95)",
        "QuotaExhausted: needs 8 A100 GPUs, best is 4 (queue red: limit 8, used 4)",
    ]


def test_charging_adds_to_every_line_the_gang_may_use() -> None:
    lines = {"A100": QuotaLine(8, used=1), "H100": QuotaLine(8, used=2), "*": QuotaLine(20, used=3)}
    assert charge(request(role(gpus=4, products=("A100",))), lines) == {
        "A100": QuotaLine(8, used=5),
        "H100": QuotaLine(8, used=2),
        "*": QuotaLine(20, used=7),
    }
