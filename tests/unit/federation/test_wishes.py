"""What a group asks for is remembered by what was written, and the memory never says anything else than reading it."""

from __future__ import annotations

import json
import zlib

import pytest

from federation.core.stored import PACKED_FROM_BYTES, Texts, canonical_json, pack_spec, spec_of, unpack_spec
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


UNLIKE = {
    "a number": 1,
    "the same with a point": 1.0,
    "a truth": True,
    "nothing": None,
    "less than nothing": -0.0,
    "a text": "1",
    "a small number": 1e-5,
    "a large number": 1e16,
    "more than 64 bits": 2**64,
    "a list": [1],
    "a letter": "é",
}


@pytest.mark.parametrize("value", UNLIKE.values(), ids=UNLIKE)
def test_a_template_is_written_the_same_whatever_others_were_written_before(value: object) -> None:
    for other in UNLIKE.values():
        canonical_json(group(roles=(Role(template={"spec": {"x": other}}),)))
    text = json.dumps({"spec": {"x": value}}, separators=(",", ":"), ensure_ascii=False)
    one = group(roles=(Role(template={"spec": {"x": value}}),))
    assert canonical_json(one).decode() == f'{{"name":"train","roles":[{{"template":{text}}}]}}'


def test_templates_that_differ_in_the_order_of_keys_are_written_the_same() -> None:
    one, other = {"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}
    assert canonical_json(group(roles=(Role(template=one),))) == canonical_json(group(roles=(Role(template=other),)))


def test_what_no_json_can_hold_is_refused_each_time() -> None:
    one = group(roles=(Role(template={"x": "\ud800"}),))
    for _ in range(2):
        with pytest.raises(UnicodeEncodeError):
            canonical_json(one)


def test_remembered_templates_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("federation.core.stored.TEXTS_BYTES_MAX", 1_000)
    texts = Texts()
    for number in range(100):
        texts.of({"x": f"{number:0200}"})
        assert texts.bytes_held <= 1_000


@pytest.mark.parametrize("length", [PACKED_FROM_BYTES - 1, PACKED_FROM_BYTES])
def test_a_small_manifest_is_stored_as_it_is_and_a_larger_one_packed(length: int) -> None:
    bare = len(canonical_json(group(roles=(Role(template={"x": ""}),))))
    one = group(roles=(Role(template={"x": "y" * (length - bare)}),))
    packed = pack_spec(canonical_json(one))
    assert len(canonical_json(one)) == length
    assert (canonical_json(one) in packed) == (length < PACKED_FROM_BYTES)
    assert zlib.decompress(packed) == canonical_json(one)
    assert unpack_spec(packed) == one
