"""What a group asks for is remembered by what was written, and the memory never says anything else than reading it."""

from __future__ import annotations

import pytest

from federation.core.stored import canonical_json, spec_of
from federation.core.wishes import WISHES_KEPT_MAX, Wish, Wishes, wish_of
from placement.model import ClusterChoice, DataSet, PodGroup, Role, RoleTopology, Topology
from placement.pod_wishes import NotHonouredError


def template(gpus: int = 8, **spec: object) -> dict[str, object]:
    container = {"name": "main", "image": "train", "resources": {"limits": {"nvidia.com/gpu": gpus}}}
    return {"spec": {"containers": [container], **spec}}


def group(name: str = "train", **changes: object) -> PodGroup:
    return PodGroup.model_validate({"name": name, "roles": (Role(count=4, template=template()),), **changes})


def asked(wishes: Wishes, one: PodGroup) -> Wish:
    return wishes.of(one, spec_of(one).fields)


OTHERS = {
    "another name": group("other"),
    "fewer pods": group(roles=(Role(count=3, template=template()),)),
    "smaller pods": group(roles=(Role(count=4, template=template(gpus=4)),)),
    "another product": group(roles=(Role(count=4, products=("H100",), template=template()),)),
    "a node selector": group(roles=(Role(count=4, template=template(nodeSelector={"disk": "ssd"})),)),
    "fewer are enough": group(min_count=2),
    "a level of the role": group(
        roles=(Role(count=4, template=template(), topology=RoleTopology(required="host", slice=2)),)
    ),
    "elastic": group(min_count=2, elastic=True),
    "a level required": group(topology=Topology(required="clique")),
    "a level preferred": group(topology=Topology(preferred="clique")),
    "in one region": group(clusters=ClusterChoice(affinity={"region": ("eu",)})),
    "not in one region": group(clusters=ClusterChoice(anti_affinity={"region": ("eu",)})),
    "data": group(data=(DataSet(name="imagenet", size_gib=150),)),
    "another priority": group(priority=5),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_what_a_group_asks_for_does_not_depend_on_who_asked_before(other: PodGroup) -> None:
    wishes = Wishes()
    asked(wishes, group())
    assert asked(wishes, other) == wish_of(other)


def test_groups_that_differ_in_name_alone_are_read_once() -> None:
    wishes = Wishes()
    assert asked(wishes, group("a")) is asked(wishes, group("b"))
    assert len(wishes) == 1


def test_a_template_that_is_refused_is_refused_each_time() -> None:
    wishes = Wishes()
    one = group(roles=(Role(count=1, template=template(nodeName="n1")),))
    for _ in range(2):
        with pytest.raises(NotHonouredError, match="nodeName"):
            asked(wishes, one)
    assert len(wishes) == 0


def test_memory_begins_anew_when_it_is_full() -> None:
    wishes = Wishes()
    one = group()
    for number in range(WISHES_KEPT_MAX):
        wishes.of(one, {"roles": str(number)})
    assert len(wishes) == WISHES_KEPT_MAX
    wishes.of(one, {"roles": "one more"})
    assert len(wishes) == 1


def test_canonical_json_has_sorted_keys_no_spaces_and_no_defaults() -> None:
    one = PodGroup(name="e", priority=5, roles=(Role(count=2, template={"é": 1.5, "a": [None, True]}),))
    text = '{"name":"e","priority":5,"roles":[{"count":2,"template":{"a":[null,true],"é":1.5}}]}'
    assert canonical_json(one) == text.encode()
