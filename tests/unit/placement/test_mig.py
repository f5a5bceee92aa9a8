"""How MIG instances are called, and which of them one GPU can hold at one time."""

from __future__ import annotations

import pytest

from placement.mig import (
    A30,
    A100_40,
    A100_80,
    B200,
    CUTTINGS,
    H200,
    Cutting,
    can_live_together,
    profile_of,
    resource_of,
)


@pytest.mark.parametrize(
    ("resource", "profile"),
    [
        ("nvidia.com/mig-1g.5gb", "1g.5gb"),
        ("nvidia.com/mig-7g.141gb", "7g.141gb"),
        ("nvidia.com/mig-1g.5gb.me", "1g.5gb+me"),
        ("nvidia.com/mig-1g.10gb.me.gfx", "1g.10gb+me+gfx"),
    ],
)
def test_a_resource_names_its_profile_and_back(resource: str, profile: str) -> None:
    assert profile_of(resource) == profile
    assert resource_of(profile) == resource


@pytest.mark.parametrize(
    "resource", ["nvidia.com/gpu", "1g.5gb", "nvidia.com/mig-", "nvidia.com/mig-8g.80gb", "nvidia.com/mig-1g.5gb+me"]
)
def test_what_is_no_mig_resource_has_no_profile(resource: str) -> None:
    assert profile_of(resource) is None


@pytest.mark.parametrize(
    ("cutting", "profiles"),
    [
        pytest.param(A100_40, ["1g.5gb"] * 7, id="seven of the smallest"),
        pytest.param(A100_40, ["1g.5gb", "1g.5gb", "2g.10gb", "3g.20gb"], id="the operator's balanced A100-40"),
        pytest.param(A100_80, ["1g.10gb", "1g.10gb", "2g.20gb", "3g.40gb"], id="the operator's balanced A100-80"),
        pytest.param(A100_80, ["1g.20gb"] * 4, id="four of one slice with twice the memory"),
        pytest.param(A100_80, ["4g.40gb", "3g.40gb"], id="four and three"),
        pytest.param(A100_80, ["2g.20gb"] * 3 + ["1g.10gb"], id="three of two and one of one"),
        pytest.param(A100_80, ["4g.40gb", "2g.20gb", "1g.10gb+me"], id="with media extensions"),
        pytest.param(H200, ["3g.71gb", "3g.71gb"], id="two halves of an H200"),
        pytest.param(B200, ["7g.180gb"], id="a whole B200"),
        pytest.param(A30, ["2g.12gb", "1g.6gb", "1g.6gb"], id="an A30 in three"),
        pytest.param(A30, [], id="nothing"),
    ],
)
def test_a_gpu_holds_these_together(cutting: Cutting, profiles: list[str]) -> None:
    assert can_live_together(cutting, profiles)
    assert can_live_together(cutting, profiles[::-1])


@pytest.mark.parametrize(
    ("cutting", "profiles"),
    [
        pytest.param(A100_40, ["1g.5gb"] * 8, id="eight"),
        pytest.param(A100_80, ["3g.40gb", "3g.40gb", "1g.10gb"], id="no memory beside two of three"),
        pytest.param(A100_80, ["2g.20gb"] * 4, id="eight compute slices"),
        pytest.param(A100_80, ["4g.40gb", "4g.40gb"], id="four starts at 0 only"),
        pytest.param(A100_80, ["3g.40gb"] * 2 + ["1g.20gb"], id="no even slice left"),
        pytest.param(A100_80, ["7g.80gb", "1g.10gb"], id="beside a whole one"),
        pytest.param(A100_80, ["1g.5gb"], id="of another product"),
        pytest.param(A30, ["4g.24gb", "1g.6gb"], id="beside a whole A30"),
        pytest.param(A30, ["1g.6gb"] * 5, id="five on an A30"),
    ],
)
def test_a_gpu_does_not_hold_these_together(cutting: Cutting, profiles: list[str]) -> None:
    assert not can_live_together(cutting, profiles)


@pytest.mark.parametrize("product", sorted(CUTTINGS))
def test_every_profile_of_a_product_fits_alone(product: str) -> None:
    cutting = CUTTINGS[product]
    assert all(can_live_together(cutting, [profile]) for profile in cutting.sizes)
