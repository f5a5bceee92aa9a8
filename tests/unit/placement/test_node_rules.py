"""Labels and taints of nodes: which rule holds where, and what is said when no node suits."""

from __future__ import annotations

import pytest

from placement.assign import assign
from placement.assignment import Assignment
from placement.fleet import NodeRow, NodeTable
from placement.model import Because, LabelRule, NodeRule, Reason, Taint, Toleration
from placement.node_rules import holds, tolerates
from tests.builders import cluster as cluster_of
from tests.builders import decision, fleet, gang, node, on, request, role, table, waits

DEDICATED = Taint("dedicated", "ml", "NoSchedule")


def labelled(name: str, taints: tuple[Taint, ...] = (), **labels: str) -> NodeRow:
    return node(name)._replace(labels=tuple(sorted(labels.items())), taints=taints)


def chosen(rows: NodeTable, *terms: tuple[LabelRule, ...], tolerations: tuple[Toleration, ...] = ()) -> list[str]:
    """The nodes that a pod of 8 GPUs could stand on."""
    rule = NodeRule(terms, tolerations)
    return [name for name, suits in zip(rows.names, rows.accepting((), (rule,)).tolist(), strict=True) if suits]


@pytest.mark.parametrize(
    ("rule", "value", "want"),
    [
        (LabelRule("k", "In", ("a", "b")), "b", True),
        (LabelRule("k", "In", ("a", "b")), "c", False),
        (LabelRule("k", "In", ("a",)), None, False),
        (LabelRule("k", "NotIn", ("a",)), "a", False),
        (LabelRule("k", "NotIn", ("a",)), "b", True),
        (LabelRule("k", "NotIn", ("a",)), None, True),
        (LabelRule("k", "Exists"), "", True),
        (LabelRule("k", "Exists"), None, False),
        (LabelRule("k", "DoesNotExist"), None, True),
        (LabelRule("k", "DoesNotExist"), "a", False),
        (LabelRule("k", "Gt", ("40000",)), "81920", True),
        (LabelRule("k", "Gt", ("81920",)), "81920", False),
        (LabelRule("k", "Lt", ("5",)), "-1", True),
        (LabelRule("k", "Lt", ("5",)), "five", False),
        (LabelRule("k", "Gt", ("5",)), None, False),
        (LabelRule("k", "Like", ("a",)), "a", False),
    ],
)
def test_rule_holds_as_in_kubernetes(rule: LabelRule, value: str | None, want: bool) -> None:
    assert holds(rule, value) is want


@pytest.mark.parametrize(
    ("toleration", "want"),
    [
        (Toleration("dedicated", "Equal", "ml", "NoSchedule"), True),
        (Toleration("dedicated", "Equal", "ml"), True),
        (Toleration("dedicated", "Equal", "web"), False),
        (Toleration("dedicated", "Exists"), True),
        (Toleration("dedicated", "Exists", "", "NoExecute"), False),
        (Toleration("other", "Exists"), False),
        (Toleration("", "Exists"), True),
        (Toleration("", "Equal", "ml"), False),
    ],
)
def test_taint_is_tolerated_as_in_kubernetes(toleration: Toleration, want: bool) -> None:
    assert tolerates(toleration, DEDICATED) is want


def test_one_term_must_hold_whole() -> None:
    rows = table(labelled("a", pool="x", disk="ssd"), labelled("b", pool="x", disk="hdd"), labelled("c", pool="y"))
    fast, pool_y = LabelRule("disk", "In", ("ssd",)), LabelRule("pool", "In", ("y",))
    assert chosen(rows, (LabelRule("pool", "In", ("x",)), fast)) == ["a"]
    assert chosen(rows, (LabelRule("pool", "In", ("x",)), fast), (pool_y,)) == ["a", "c"]


def test_all_taints_must_be_tolerated() -> None:
    spot = Taint("spot", "", "NoSchedule")
    rows = table(labelled("a", (DEDICATED,)), labelled("b", (DEDICATED, spot)), labelled("c"))
    assert chosen(rows) == ["c"]
    assert chosen(rows, tolerations=(Toleration("dedicated", "Exists"),)) == ["a", "c"]
    assert chosen(rows, tolerations=(Toleration("", "Exists"),)) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kubernetes.io/hostname", "b"),
        ("metadata.name", "b"),
        ("nvidia.com/gpu.product", "H100"),
        ("nvidia.com/gpu.clique", "q"),
        ("muster.io/rack", "r"),
        ("muster.io/block", "k"),
        ("topology.kubernetes.io/zone", "z"),
    ],
)
def test_what_a_report_says_of_every_node_can_be_chosen_by_its_label(key: str, value: str) -> None:
    rows = table(node("a"), node("b", product="H100", clique="q", rack="r", block="k", zone="z"))
    assert chosen(rows, (LabelRule(key, "In", (value,)),)) == ["b"]
    assert chosen(rows, (LabelRule(key, "NotIn", (value,)),)) == ["a"]


def test_tainted_node_is_taken_by_those_who_tolerate_it_only() -> None:
    where = fleet(cluster_of("eu", labelled("a", (DEDICATED,))))
    bound = role(nodes=NodeRule(tolerations=(Toleration("dedicated", "Exists"),)))
    assert decision(where, gang("anyone")) == waits(Reason.NO_SUITABLE_NODE)
    assert decision(where, gang("team", roles=(bound,))) == on("eu")


def test_gangs_that_choose_nodes_and_those_that_do_not_share_a_cluster_without_overlap() -> None:
    where = fleet(cluster_of("eu", labelled("a", pool="x"), labelled("b")))
    choosy = role("choosy", nodes=NodeRule(((LabelRule("pool", "In", ("x",)),),)))
    found = assign(where["eu"].table, request(role("any"), choosy))  # type: ignore[index]
    assert isinstance(found, Assignment)
    assert [(part.role, part.node) for part in found.parts] == [("any", "b"), ("choosy", "a")]


def test_on_one_host_every_role_must_be_suited() -> None:
    rows = table(labelled("a", pool="x"), labelled("b", (DEDICATED,), pool="x"), labelled("c"))
    pool = role("pool", gpus=1, nodes=NodeRule(((LabelRule("pool", "In", ("x",)),),)))
    tolerant = role("tolerant", gpus=1, nodes=NodeRule(tolerations=(Toleration("dedicated", "Exists"),)))
    found = assign(rows, request(pool, tolerant, level_required="host"))
    assert isinstance(found, Assignment)
    assert found.nodes == ("a",)


def test_refusal_counts_the_nodes_that_lack_labels_and_those_with_taints() -> None:
    rows = table(labelled("a", pool="y"), labelled("b", (DEDICATED,), pool="x"), labelled("c"))
    asked = request(role(nodes=NodeRule(((LabelRule("pool", "In", ("x",)), LabelRule("disk", "DoesNotExist")),))))
    assert assign(rows, asked) == (
        Because(
            Reason.NO_SUITABLE_NODE,
            detail="of 3 nodes 2 lack pool=x and no disk, 1 has the taint dedicated=ml:NoSchedule",
        ),
    )


def test_only_nodes_of_the_product_are_counted() -> None:
    rows = table(node("a", product="H100"), labelled("b", (DEDICATED,)), labelled("c", (DEDICATED,)))
    assert assign(rows, request(role(products=("A100",)))) == (
        Because(Reason.NO_SUITABLE_NODE, detail="of 2 nodes 2 have the taint dedicated=ml:NoSchedule"),
    )


def test_a_node_that_is_tainted_anew_takes_nobody_any_more() -> None:
    rows = table(labelled("a"))
    assert isinstance(assign(rows, request(role())), Assignment)
    tainted = rows.with_changes([labelled("a", (DEDICATED,))])
    assert [one.reason for one in _refused(tainted)] == [Reason.NO_SUITABLE_NODE]


def _refused(rows: NodeTable) -> tuple[Because, ...]:
    found = assign(rows, request(role()))
    assert not isinstance(found, Assignment)
    return found
