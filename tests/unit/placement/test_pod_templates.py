"""What a pod template says of the nodes it wants, and what is refused of it."""

from __future__ import annotations

from typing import Any

import pytest

from placement.model import ANY_NODE, LabelRule, NodeRule, Toleration
from placement.pod_templates import (
    RULES_PER_TERM_MAX,
    TERMS_MAX,
    TOLERATIONS_MAX,
    VALUES_PER_RULE_MAX,
    TemplateError,
    node_rule,
)


def read(**spec: Any) -> NodeRule:
    return node_rule(spec, "spec", product_elsewhere=True)


def affinity(*terms: Any) -> dict[str, Any]:
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}}


def rules(*rows: tuple[str, str, list[str]]) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": op, "values": values} for key, op, values in rows]}


def test_a_template_that_says_nothing_wants_any_untainted_node() -> None:
    assert read(containers=[]) == ANY_NODE
    assert read(nodeSelector=None, affinity={}, tolerations=[]) == ANY_NODE


def test_selector_joins_every_term_of_the_affinity() -> None:
    found = read(
        nodeSelector={"pool": "x"},
        affinity=affinity(rules(("zone", "In", ["b", "a", "a"])), rules(("gpu", "Exists", []))),
    )
    pool = LabelRule("pool", "In", ("x",))
    assert found.terms == (
        (LabelRule("gpu", "Exists"), pool),
        (pool, LabelRule("zone", "In", ("a", "b"))),
    )


def test_equal_choices_give_equal_rules_however_they_are_written() -> None:
    one = read(affinity=affinity(rules(("a", "In", ["1"]), ("b", "In", ["2"]))), tolerations=[SPOT, TEAM])
    other = read(nodeSelector={"b": "2", "a": "1"}, tolerations=[TEAM, SPOT, TEAM])
    assert one == other


SPOT = {"key": "spot", "operator": "Exists"}
TEAM = {"key": "team", "value": "vision", "effect": "NoExecute", "tolerationSeconds": 60}


def test_tolerations_are_read_without_those_that_concern_no_submitter() -> None:
    found = read(
        tolerations=[
            TEAM,
            {"key": "nvidia.com/gpu", "operator": "Exists"},
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"},
            {"key": "soft", "operator": "Exists", "effect": "PreferNoSchedule"},
            {"operator": "Exists"},
        ]
    )
    assert found == NodeRule(tolerations=(Toleration("", "Exists"), Toleration("team", "Equal", "vision", "NoExecute")))


def test_a_node_is_named_by_its_field() -> None:
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n-1"]}]}
    assert read(affinity=affinity(term)).terms == ((LabelRule("metadata.name", "In", ("n-1",)),),)


def test_product_is_a_rule_only_where_the_role_names_its_products_itself() -> None:
    spec = {"nodeSelector": {"nvidia.com/gpu.product": "H100"}}
    assert node_rule(spec, "spec", product_elsewhere=True) == ANY_NODE
    assert node_rule(spec, "spec", product_elsewhere=False).terms == (
        (LabelRule("nvidia.com/gpu.product", "In", ("H100",)),),
    )


def test_preferred_affinity_asks_for_nothing() -> None:
    preferred = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {}}]}
    assert read(affinity={"nodeAffinity": preferred}) == ANY_NODE


AT = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ({"nodeSelector": {"a": 1}}, "spec.nodeSelector.a: must be a string"),
        ({"nodeSelector": ["a"]}, "spec.nodeSelector: must be a mapping"),
        ({"affinity": affinity()}, f"{AT}: chooses no node at all"),
        ({"affinity": affinity({})}, f"{AT}: chooses no node at all"),
        (
            {"affinity": affinity(rules(("a", "Near", ["x"])))},
            f"{AT}[0].matchExpressions[0].operator: 'Near' is none of DoesNotExist, Exists, Gt, In, Lt, NotIn",
        ),
        (
            {"affinity": affinity(rules(("a", "In", [])))},
            f"{AT}[0].matchExpressions[0].values: 0 values do not go with the operator In",
        ),
        (
            {"affinity": affinity(rules(("a", "Exists", ["x"])))},
            f"{AT}[0].matchExpressions[0].values: 1 values do not go with the operator Exists",
        ),
        (
            {"affinity": affinity(rules(("a", "Gt", ["many"])))},
            f"{AT}[0].matchExpressions[0].values: 1 values do not go with the operator Gt",
        ),
        (
            {"affinity": affinity({"matchFields": [{"key": "spec.x", "operator": "In", "values": ["a"]}]})},
            f"{AT}[0].matchFields[0].key: 'spec.x' is not metadata.name, the only field there is",
        ),
        ({"tolerations": [{"operator": "Equal"}]}, "spec.tolerations[0].operator: without a key it must be Exists"),
        (
            {"tolerations": [{"key": "a", "operator": "Like"}]},
            "spec.tolerations[0].operator: 'Like' is neither Equal nor Exists",
        ),
        ({"tolerations": "all"}, "spec.tolerations: must be a list"),
    ],
)
def test_what_kubernetes_would_not_accept_is_refused_by_name(spec: dict[str, Any], error: str) -> None:
    with pytest.raises(TemplateError) as caught:
        read(**spec)
    assert str(caught.value) == error


def numbered(count: int) -> list[str]:
    return [f"v{number:02}" for number in range(count)]


@pytest.mark.parametrize(
    ("spec_of", "limit", "what"),
    [
        (lambda n: {"nodeSelector": dict.fromkeys(numbered(n), "x")}, RULES_PER_TERM_MAX, "labels"),
        (lambda n: {"affinity": affinity(*(rules((one, "Exists", [])) for one in numbered(n)))}, TERMS_MAX, "terms"),
        (
            lambda n: {"affinity": affinity(rules(*((one, "Exists", []) for one in numbered(n))))},
            RULES_PER_TERM_MAX,
            "rules",
        ),
        (lambda n: {"affinity": affinity(rules(("a", "In", numbered(n))))}, VALUES_PER_RULE_MAX, "values"),
        (
            lambda n: {"tolerations": [{"key": one, "operator": "Exists"} for one in numbered(n)]},
            TOLERATIONS_MAX,
            "tolerations",
        ),
    ],
)
def test_so_many_are_read_and_one_more_is_refused(spec_of: Any, limit: int, what: str) -> None:
    assert read(**spec_of(limit)) != ANY_NODE
    with pytest.raises(TemplateError, match=f"{limit + 1} {what}, at most {limit} are allowed"):
        read(**spec_of(limit + 1))
