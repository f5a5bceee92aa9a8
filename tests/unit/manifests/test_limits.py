"""Limits of manifests: what is n is taken, what is n + 1 is refused."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from federation.manifests import dialects
from federation.manifests.strict import (
    DEPTH_MAX,
    DOCUMENTS_MAX,
    MANIFEST_BYTES_MAX,
    NODES_MAX,
    ManifestError,
    check_document,
    read_json,
    read_yaml,
)
from placement.model import GRACE_S_MAX, LABELS_MAX, PODS_PER_GROUP_MAX, PRODUCTS_MAX, ROLES_MAX, PodGroup


def group(**fields: Any) -> dict[str, Any]:
    return {"name": "a", "roles": [{"template": {}}], **fields}


def taken(fields: dict[str, Any]) -> bool:
    try:
        dialects.read(check_document(fields))
    except (ManifestError, ValidationError):
        return False
    return True


@pytest.mark.parametrize(
    ("largest", "too_large"),
    [
        pytest.param(group(name="a" * 63), group(name="a" * 64), id="name"),
        pytest.param(
            group(roles=[{"template": {}, "count": PODS_PER_GROUP_MAX}]),
            group(roles=[{"template": {}, "count": PODS_PER_GROUP_MAX + 1}]),
            id="pods of a role",
        ),
        pytest.param(
            group(roles=[{"name": f"r{i}", "template": {}, "count": PODS_PER_GROUP_MAX // 2} for i in range(2)]),
            group(
                roles=[
                    {"name": "r0", "template": {}, "count": PODS_PER_GROUP_MAX // 2},
                    {"name": "r1", "template": {}, "count": PODS_PER_GROUP_MAX // 2 + 1},
                ]
            ),
            id="pods of all roles",
        ),
        pytest.param(
            group(roles=[{"name": f"r{i}", "template": {}} for i in range(ROLES_MAX)]),
            group(roles=[{"name": f"r{i}", "template": {}} for i in range(ROLES_MAX + 1)]),
            id="roles",
        ),
        pytest.param(
            group(labels={f"l{i}": "x" for i in range(LABELS_MAX)}),
            group(labels={f"l{i}": "x" for i in range(LABELS_MAX + 1)}),
            id="labels",
        ),
        pytest.param(group(labels={"a": "x" * 63}), group(labels={"a": "x" * 64}), id="label value"),
        pytest.param(group(labels={"k" * 63: "x"}), group(labels={"k" * 64: "x"}), id="label key"),
        pytest.param(group(grace_s=GRACE_S_MAX), group(grace_s=GRACE_S_MAX + 1), id="grace"),
        pytest.param(group(priority=10**9), group(priority=10**9 + 1), id="priority"),
        pytest.param(group(priority=-(10**9)), group(priority=-(10**9) - 1), id="least priority"),
        pytest.param(group(min_count=1), group(min_count=2), id="min_count"),
        pytest.param(
            group(roles=[{"template": {}, "products": ["p"] * PRODUCTS_MAX}]),
            group(roles=[{"template": {}, "products": ["p"] * (PRODUCTS_MAX + 1)}]),
            id="products",
        ),
        pytest.param(
            group(roles=[{"template": {}, "gpu": {"whole": 16}}]),
            group(roles=[{"template": {}, "gpu": {"whole": 17}}]),
            id="GPUs of a pod",
        ),
        pytest.param(
            group(roles=[{"template": {}, "gpu": {"milli": 1000}}]),
            group(roles=[{"template": {}, "gpu": {"milli": 1001}}]),
            id="share of a GPU",
        ),
        pytest.param(group(max_run_s=366 * 86_400), group(max_run_s=366 * 86_400 + 1), id="run time"),
    ],
)
def test_limit_of_a_group(largest: dict[str, Any], too_large: dict[str, Any]) -> None:
    assert (taken(largest), taken(too_large)) == (True, False)


def nested(depth: int) -> str:
    """A mapping whose deepest value is at this depth, the mapping itself being at 1."""
    return "{a: " * (depth - 1) + "1" + "}" * (depth - 1)


def test_yaml_may_be_32_deep_and_no_deeper() -> None:
    assert len(read_yaml(nested(DEPTH_MAX))) == 1
    with pytest.raises(ManifestError) as caught:
        read_yaml(nested(DEPTH_MAX + 1))
    assert caught.value.reason == "TooDeep"


def test_json_may_be_32_deep_and_no_deeper() -> None:
    assert read_json(nested(DEPTH_MAX).replace("a", '"a"').encode()) != {}
    with pytest.raises(ManifestError) as caught:
        read_json(nested(DEPTH_MAX + 1).replace("a", '"a"').encode())
    assert caught.value.reason == "TooDeep"


def test_json_deep_enough_to_exhaust_the_parser_is_refused() -> None:
    with pytest.raises(ManifestError) as caught:
        read_json(b"[" * 100_000 + b"]" * 100_000)
    assert caught.value.reason == "TooDeep"


def test_a_manifest_may_have_256_kib_and_no_more() -> None:
    frame = "a: "
    assert read_yaml(frame + "x" * (MANIFEST_BYTES_MAX - len(frame)))[0]["a"].startswith("x")
    with pytest.raises(ManifestError) as caught:
        read_yaml(frame + "x" * (MANIFEST_BYTES_MAX - len(frame) + 1))
    assert caught.value.reason == "TooLarge"


def test_bytes_are_counted_and_not_characters() -> None:
    with pytest.raises(ManifestError) as caught:
        read_yaml("a: " + "ü" * (MANIFEST_BYTES_MAX // 2))
    assert caught.value.reason == "TooLarge"


def test_a_json_body_may_be_as_large_as_its_reader_allows() -> None:
    assert read_json(b'"ab"', bytes_max=4) == "ab"
    with pytest.raises(ManifestError) as caught:
        read_json(b'"abc"', bytes_max=4)
    assert caught.value.reason == "TooLarge"


def test_a_file_may_hold_a_thousand_documents_and_no_more() -> None:
    assert len(read_yaml("---\na: 1\n" * DOCUMENTS_MAX)) == DOCUMENTS_MAX
    with pytest.raises(ManifestError) as caught:
        read_yaml("---\na: 1\n" * (DOCUMENTS_MAX + 1))
    assert caught.value.reason == "TooMany"


def test_a_document_may_hold_50000_values_and_no_more() -> None:
    assert check_document({"a": [0] * (NODES_MAX - 2)})["a"][0] == 0
    with pytest.raises(ManifestError) as caught:
        check_document({"a": [0] * (NODES_MAX - 1)})
    assert caught.value.reason == "TooLarge"


def test_the_group_with_the_most_of_everything_is_taken() -> None:
    roles = [{"name": f"r{i}", "template": {}, "count": PODS_PER_GROUP_MAX // ROLES_MAX} for i in range(ROLES_MAX)]
    assert isinstance(dialects.read(json.loads(json.dumps(group(roles=roles)))), PodGroup)
