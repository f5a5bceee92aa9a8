"""Which nodes a gang gets, and when it gets none."""

from __future__ import annotations

import pytest

from placement.assign import assign
from placement.assignment import Assignment, PodOnNode
from placement.fleet import NodeRow, NodeTable
from placement.model import Because, GangRequest, Reason
from tests.builders import clique, node, nodes, request, role, table


def pods_by_node(rows: NodeTable, asked: GangRequest) -> dict[str, int]:
    found = assign(rows, asked)
    assert isinstance(found, Assignment), found
    placed: dict[str, int] = {}
    for part in found.parts:
        placed[part.node] = placed.get(part.node, 0) + part.pods
    return placed


def labelled(name: str, field: str, value: str) -> NodeRow:
    return NodeRow(**(node(name)._asdict() | {field: value}))


def refused(rows: NodeTable, asked: GangRequest) -> tuple[Because, ...]:
    found = assign(rows, asked)
    assert not isinstance(found, Assignment), found
    return found


# --- whole GPUs -------------------------------------------------------------------------------------------------------


def test_pods_go_to_the_nodes_with_the_fewest_free_gpus() -> None:
    rows = table(node("a", free=8), node("b", free=2), node("c", free=4))
    assert pods_by_node(rows, request(role(pods=3, gpus=2))) == {"b": 1, "c": 2}


def test_equally_full_nodes_are_taken_by_clique_and_name() -> None:
    rows = table(node("b", clique="x"), node("a", clique="y"), node("c", clique="x"))
    assert pods_by_node(rows, request(role(pods=2))) == {"b": 1, "c": 1}


def test_a_gang_that_fits_to_the_last_gpu_is_placed() -> None:
    assert pods_by_node(table(nodes(32)), request(role(pods=16, gpus=2))) == {f"n00{n}": 4 for n in range(4)}


def test_no_pod_is_placed_when_the_last_one_has_no_room() -> None:
    assert refused(table(nodes(32, free=24)), request(role(pods=4)))[0].reason is Reason.INSUFFICIENT_GPUS


def test_min_count_does_not_make_a_smaller_gang() -> None:
    rows = table(nodes(32, free=24))
    assert refused(rows, request(role(pods=4, min_count=3)))[0].reason is Reason.INSUFFICIENT_GPUS


def test_nodes_that_take_no_new_pods_are_passed_over() -> None:
    assert pods_by_node(table(node("a", usable=False), node("b")), request(role())) == {"b": 1}


def test_only_nodes_of_an_accepted_product_are_used() -> None:
    rows = table(node("a", product="A100"), node("b", product="H100"), node("c", product="L40"))
    assert pods_by_node(rows, request(role(pods=2, products=("H100", "L40")))) == {"b": 1, "c": 1}


def test_cpu_and_memory_bound_the_pods_of_a_node() -> None:
    rows = table(node("a", cpu=7), node("b", memory_gib=5), node("c"))
    assert pods_by_node(rows, request(role(pods=4, gpus=1, cpu_milli=3000, memory_mib=4096))) == {
        "a": 2,
        "b": 1,
        "c": 1,
    }


def test_pods_without_gpus_leave_free_gpus_alone() -> None:
    rows = table(node("gpu"), node("cpu-large", gpus=0, cpu=64), node("cpu-small", gpus=0, cpu=8))
    assert pods_by_node(rows, request(role(pods=2, gpus=0, cpu_milli=4000))) == {"cpu-small": 2}


def test_pods_that_ask_for_nothing_fit_on_any_usable_node() -> None:
    assert pods_by_node(table(node("a", free=0)), request(role(pods=3, gpus=0))) == {"a": 3}


def test_a_gang_of_ten_thousand_pods_is_placed() -> None:
    rows = table([node(f"n{number:04}") for number in range(1_250)])
    assert sum(pods_by_node(rows, request(role(pods=10_000, gpus=1))).values()) == 10_000


# --- ranks ------------------------------------------------------------------------------------------------------------


def test_ranks_count_over_the_whole_gang_in_the_order_of_roles() -> None:
    found = assign(table(node("a"), node("b")), request(role("leader", gpus=1), role("worker", pods=3, gpus=4)))
    assert isinstance(found, Assignment)
    assert found.pods == (
        PodOnNode("leader", 0, found.parts[0].node),
        PodOnNode("worker", 1, found.parts[1].node),
        PodOnNode("worker", 2, found.parts[1].node),
        PodOnNode("worker", 3, found.parts[2].node),
    )
    assert [(part.role, part.node, part.pods) for part in found.parts] == [
        ("leader", "b", 1),
        ("worker", "a", 2),
        ("worker", "b", 1),
    ]


def test_neighbouring_ranks_stand_in_neighbouring_nodes() -> None:
    found = assign(table(node("a", free=8), node("b", free=1), node("c", free=8)), request(role(pods=3, gpus=1)))
    assert isinstance(found, Assignment)
    assert [pod.node for pod in found.pods] == ["a", "a", "b"]


# --- levels -----------------------------------------------------------------------------------------------------------


def test_host_level_puts_all_pods_on_the_fullest_node_that_holds_them() -> None:
    rows = table(node("a", free=8), node("b", free=4), node("c", free=2))
    assert pods_by_node(rows, request(role(pods=2, gpus=2), level_required="host")) == {"b": 2}


def test_host_level_counts_all_roles_together() -> None:
    rows = table(node("a", free=4), node("b", free=5))
    asked = request(role("leader", gpus=1), role("worker", pods=2, gpus=2), level_required="host")
    assert pods_by_node(rows, asked) == {"b": 3}


def test_host_level_needs_a_product_that_suits_every_role() -> None:
    rows = table(node("a", product="A100"), node("b", product="H100"))
    asked = request(role("x", gpus=1, products=("A100",)), role("y", gpus=1, products=("H100",)), level_required="host")
    assert str(refused(rows, asked)[0]) == "NoDomainLargeEnough (no one host has all the products asked for)"


def test_clique_level_takes_the_tightest_clique_that_holds_the_gang() -> None:
    rows = table(clique("loose", 64), clique("small", 16), clique("tight", 64, free=24))
    assert pods_by_node(rows, request(role(pods=3), level_required="clique")) == {
        "tight-000": 1,
        "tight-001": 1,
        "tight-002": 1,
    }


def test_of_cliques_with_equally_many_free_gpus_the_fuller_one_is_taken() -> None:
    rows = table(clique("a", 16), clique("b", 32, free=16))
    assert pods_by_node(rows, request(role(), level_required="clique")) == {"b-000": 1}


def test_of_equal_cliques_the_first_by_name_is_taken() -> None:
    assert pods_by_node(table(clique("b", 16), clique("a", 16)), request(role(), level_required="clique")) == {
        "a-000": 1
    }


def test_node_without_a_clique_label_is_a_clique_of_its_own() -> None:
    rows = table(node("a"), node("b"))
    assert pods_by_node(rows, request(role(pods=2, gpus=4), level_required="clique")) == {"a": 2}
    assert (
        refused(rows, request(role(pods=3, gpus=4), level_required="clique"))[0].reason is Reason.NO_CLIQUE_LARGE_ENOUGH
    )


@pytest.mark.parametrize("level", ["rack", "block", "zone", "topology.kubernetes.io/zone"])
def test_gang_stays_in_one_domain_of_a_labelled_level(level: str) -> None:
    field = "zone" if level.endswith("zone") else level
    rows = table(labelled("a", field, "d1"), labelled("b", field, "d2"), labelled("c", field, "d2"))
    assert pods_by_node(rows, request(role(pods=2), level_required=level)) == {"b": 1, "c": 1}


def test_nodes_without_the_label_of_the_level_are_not_used() -> None:
    rows = table(node("a"), node("b", rack="r1"))
    assert pods_by_node(rows, request(role(), level_required="rack")) == {"b": 1}


def test_level_that_no_node_is_labelled_with_is_refused() -> None:
    assert str(refused(table(node("a")), request(role(), level_required="rack"))[0]) == (
        "NoDomainLargeEnough (no node is in a rack)"
    )
    assert str(refused(table(node("a")), request(role(), level_required="acme.io/row"))[0]) == (
        "NoDomainLargeEnough (no node is in a acme.io/row)"
    )


def test_preferred_level_is_met_where_it_can_be() -> None:
    found = assign(table(clique("a", 16, free=8), clique("b", 16)), request(role(pods=2), level_preferred="clique"))
    assert isinstance(found, Assignment)
    assert (found.nodes, found.preferred_met) == (("b-000", "b-001"), True)


def test_preferred_level_that_cannot_be_met_does_not_stop_the_gang() -> None:
    found = assign(table(clique("a", 16), clique("b", 16)), request(role(pods=3), level_preferred="clique"))
    assert isinstance(found, Assignment)
    assert (found.nodes, found.preferred_met) == (("a-000", "a-001", "b-000"), False)


def test_preferred_level_is_looked_for_inside_the_required_one() -> None:
    rows = table(
        node("a", clique="c1", zone="z1"),
        node("b", clique="c1", zone="z2"),
        node("c", clique="c2", zone="z2"),
        node("d", clique="c2", zone="z2"),
    )
    found = assign(rows, request(role(pods=2), level_required="zone", level_preferred="clique"))
    assert isinstance(found, Assignment)
    assert (found.nodes, found.preferred_met) == (("c", "d"), True)


def test_nodes_outside_every_required_domain_do_not_help_to_meet_a_preference() -> None:
    rows = table(
        node("a", clique="c1"), node("b", clique="c1"), node("c", clique="c2", rack="r1"), node("d", rack="r1")
    )
    found = assign(rows, request(role(pods=2), level_required="rack", level_preferred="clique"))
    assert isinstance(found, Assignment)
    assert (found.nodes, found.preferred_met) == (("c", "d"), False)


def test_preferred_level_that_nobody_knows_is_ignored() -> None:
    found = assign(table(node("a")), request(role(), level_preferred="acme.io/row"))
    assert isinstance(found, Assignment)
    assert not found.preferred_met


# --- several roles ----------------------------------------------------------------------------------------------------


def test_largest_pods_choose_first_so_that_small_ones_take_the_rest() -> None:
    rows = table(node("a", free=8), node("b", free=5))
    asked = request(role("small", pods=5, gpus=1), role("large", gpus=8))
    assert pods_by_node(rows, asked) == {"a": 1, "b": 5}


def test_role_bound_to_a_product_chooses_before_one_that_takes_any() -> None:
    rows = table(node("a", product="A100"), node("b", product="H100"))
    asked = request(role("any", gpus=8), role("bound", gpus=4, products=("A100",)))
    found = assign(rows, asked)
    assert isinstance(found, Assignment)
    assert [(part.role, part.node) for part in found.parts] == [("any", "b"), ("bound", "a")]


def test_roles_of_one_shape_are_counted_together() -> None:
    rows = table(node("a"), node("b"))
    found = assign(rows, request(role("x", pods=3, gpus=4), role("y", gpus=4)))
    assert isinstance(found, Assignment)
    assert [(part.role, part.node, part.pods) for part in found.parts] == [("x", "a", 2), ("x", "b", 1), ("y", "b", 1)]


def test_all_roles_share_the_domain() -> None:
    rows = table(clique("a", 16), clique("b", 32))
    asked = request(role("x", pods=2, gpus=8), role("y", pods=1, gpus=4), level_required="clique")
    assert set(pods_by_node(rows, asked)) == {"b-000", "b-001", "b-002"}


def test_next_clique_is_tried_when_roles_do_not_fit_side_by_side() -> None:
    split = [node("a1", free=4, clique="a"), node("a2", free=4, clique="a")]
    whole = [node("b1", free=6, clique="b"), node("b2", free=4, clique="b")]
    asked = request(role("x", gpus=4), role("y", pods=2, gpus=3), level_required="clique")
    assert pods_by_node(table(split, whole), asked) == {"b1": 2, "b2": 1}


# --- refusals ---------------------------------------------------------------------------------------------------------

REFUSALS = {
    "too few GPUs": (
        table(nodes(64, free=48)),
        request(role(pods=8, products=("A100",))),
        "InsufficientGpus: needs 64 free A100 GPUs, best is 48",
    ),
    "too few GPUs in any clique": (
        table(clique("a", 64, free=48), clique("b", 64, free=32)),
        request(role(pods=8, products=("A100",)), level_required="clique"),
        "NoCliqueLargeEnough: needs 64 free A100 GPUs in one clique, best is 48",
    ),
    "every clique too small": (
        table(clique("a", 32), clique("b", 32)),
        request(role(pods=8), level_required="clique"),
        "NoCliqueLargeEnough: needs 64 free GPUs in one clique, best is 32 (the largest has 32 in all)",
    ),
    "no host large enough": (
        table(node("a", free=6), node("b", free=4)),
        request(role(pods=2, gpus=4), level_required="host"),
        "NoDomainLargeEnough: needs 8 free GPUs in one host, best is 6",
    ),
    "free GPUs in too small pieces": (
        table(node("a", free=4), node("b", free=4)),
        request(role()),
        "TooFragmented: needs 1 pods of 8 GPUs, best is 0 (8 GPUs are free, in too small pieces)",
    ),
    "too little CPU beside the GPUs": (
        table(node("a")._replace(cpu_milli_free=5_000)),
        request(role(pods=2, gpus=4, cpu_milli=3_000)),
        "InsufficientCpu: needs 2 pods of 4 GPUs with 3000m CPU each, best is 1",
    ),
    "too little memory beside the GPUs": (
        table(node("a")._replace(memory_mib_free=5_000)),
        request(role(pods=2, gpus=4, memory_mib=3_000)),
        "InsufficientMemory: needs 2 pods of 4 GPUs with 3000 MiB each, best is 1",
    ),
    "unknown product": (
        table(node("a", product="A100")),
        request(role(products=("H100", "L40"))),
        "NoSuchProduct (H100 or L40)",
    ),
    "larger than the cluster": (
        table(nodes(64, free=0)),
        request(role(pods=9)),
        "LargerThanCluster: needs 9 pods of 8 GPUs, best is 8 (role worker)",
    ),
    "roles larger than the cluster together": (
        table(nodes(16)),
        request(role("x", pods=2, gpus=7), role("y", pods=3, gpus=1)),
        "LargerThanCluster: needs 17 GPUs, best is 16 (all roles together)",
    ),
    "roles that fit one by one but not together": (
        table(node("a", free=6), node("b", free=1)),
        request(role("x", gpus=6), role("y", pods=2, gpus=1)),
        "InsufficientGpus: needs 8 free GPUs, best is 7 (all roles together)",
    ),
    "roles that compete for the same pieces": (
        table(node("a", free=6), node("b", free=2)),
        request(role("x", gpus=5), role("y", gpus=3)),
        "TooFragmented (the roles fit one by one, but not side by side)",
    ),
    "a share of a GPU": (
        table(node("a")),
        request(role(gpus=0, gpu_milli=500)),
        "ShareNotEnforced (role worker asks for 500 milli of a GPU; no node here gives parts of GPUs)",
    ),
    "a larger share than nodes give": (
        table(node("a")._replace(devices=(("shared/4", 32, 32), ("1g.10gb", 7, 7)))),
        request(role(gpus=0, gpu_milli=251)),
        "ShareNotEnforced (role worker asks for 251 milli of a GPU; nodes here give 1g.10gb, shares of 250 milli)",
    ),
    "a MIG profile": (
        table(node("a")._replace(devices=(("1g.10gb", 7, 7),))),
        request(role(gpus=0, mig_profile="3g.40gb")),
        "ShareNotEnforced (role worker asks for 3g.40gb; nodes here give 1g.10gb)",
    ),
    "instances that others hold": (
        table(node("a")._replace(devices=(("1g.10gb", 7, 3),))),
        request(role(pods=4, gpus=0, mig_profile="1g.10gb")),
        "InsufficientDevices: needs 4 free instances of 1g.10gb, best is 3",
    ),
    "instances in one rack": (
        table(node(name, rack=name)._replace(devices=(("1g.10gb", 7, 3),)) for name in ("a", "b")),
        request(role(pods=6, gpus=0, mig_profile="1g.10gb"), level_required="rack"),
        "NoDomainLargeEnough: needs 6 free instances of 1g.10gb in one rack, best is 3",
    ),
    "more instances than the cluster has": (
        table(node("a")._replace(devices=(("1g.10gb", 7, 7),))),
        request(role(pods=8, gpus=0, mig_profile="1g.10gb")),
        "LargerThanCluster: needs 8 pods of 1 instances of 1g.10gb, best is 7 (role worker)",
    ),
    "replicas that others hold": (
        table(node("a")._replace(devices=(("shared/4", 8, 1),))),
        request(role(pods=2, gpus=0, gpu_milli=200)),
        "InsufficientDevices: needs 2 free shares of at least 200 milli, best is 1",
    ),
    "shares of unlike sizes that need the same replicas": (
        table(node("a")._replace(devices=(("shared/4", 8, 3),))),
        request(role("x", pods=2, gpus=0, gpu_milli=200), role("y", pods=2, gpus=0, gpu_milli=250)),
        "InsufficientDevices: needs 4 free shares of at least 250 milli, best is 3 (all roles together)",
    ),
    "a whole gang's instances on one host": (
        table(node(name)._replace(devices=(("1g.10gb", 7, 3),)) for name in ("a", "b")),
        request(role(pods=4, gpus=0, mig_profile="1g.10gb"), level_required="host"),
        "NoDomainLargeEnough: needs 4 free instances of 1g.10gb in one host, best is 3",
    ),
    "no usable node": (
        table(node("a", usable=False)),
        request(role(gpus=0)),
        "InsufficientCpu: needs 1 pods on usable nodes, best is 0",
    ),
    "no nodes at all": (
        table(),
        request(role()),
        "LargerThanCluster: needs 1 pods of 8 GPUs, best is 0 (role worker)",
    ),
}


@pytest.mark.parametrize(("rows", "asked", "sentence"), REFUSALS.values(), ids=REFUSALS.keys())
def test_refusal_says_what_is_missing_and_how_much(rows: NodeTable, asked: GangRequest, sentence: str) -> None:
    assert str(refused(rows, asked)[0]) == sentence


def test_gravest_reason_comes_first() -> None:
    asked = request(role("x", gpus=0, gpu_milli=1), role("y", products=("H100",)))
    found = refused(table(node("a")), asked)
    assert [one.reason for one in found] == [Reason.SHARE_NOT_ENFORCED, Reason.NO_SUCH_PRODUCT]


def test_looking_for_nodes_changes_nothing() -> None:
    rows = table(nodes(32))
    before = list(rows.rows())
    assign(rows, request(role(pods=2)))
    assign(rows, request(role("x", pods=2), role("y", pods=3, gpus=1), level_required="clique"))
    assert list(rows.rows()) == before
