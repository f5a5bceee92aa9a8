"""Which nodes a pod template chooses: its node selector, required node affinity and tolerations, as a `NodeRule`.

What is only preferred is left to nobody: direct binding does not look at it. Amounts are `placement.requests`'.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from placement.model import LabelRule, NodeRule, Toleration
from placement.node_rules import OPERATORS

PRODUCT_LABEL: Final = "nvidia.com/gpu.product"

# People write a few of each; a request class is kept in every record of its groups (DESIGN §7: about 1 KiB).
TERMS_MAX: Final = 8
RULES_PER_TERM_MAX: Final = 16
VALUES_PER_RULE_MAX: Final = 32
TOLERATIONS_MAX: Final = 16

# Taints that no toleration of a submitter concerns: every pod of ours gets the first, and nodes with one of the others
# take no gang however tolerant, since they are the node's own state.
TOLERATED_ANYWAY: Final = "nvidia.com/gpu"
NODE_STATE_PREFIX: Final = "node.kubernetes.io/"

REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
_FIELD: Final = "metadata.name"


class TemplateError(ValueError):
    """A pod template does not say in Kubernetes' form what it needs. `field` names the place, `why` the fault."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}")
        self.field = field
        self.why = why


def node_rule(spec: Mapping[str, object], where: str, *, product_elsewhere: bool) -> NodeRule:
    """The rule of a pod spec; equal choices give equal rules. TemplateError for what Kubernetes would not accept.

    `product_elsewhere`: the GPU product in the node selector is the role's accepted product, and no rule of its own.
    """
    if not spec.keys() & {"nodeSelector", "affinity", "tolerations"}:
        return NodeRule()
    selector = _selector(spec, f"{where}.nodeSelector", product_elsewhere=product_elsewhere)
    terms = _affinity(spec, f"{where}.affinity.nodeAffinity.{REQUIRED}")
    joined = tuple(sorted({tuple(sorted({*selector, *term})) for term in terms or [()]}))
    return NodeRule(joined if joined != ((),) else (), _tolerations(spec, f"{where}.tolerations"))


def _selector(spec: Mapping[str, object], where: str, *, product_elsewhere: bool) -> list[LabelRule]:
    labels = mapping_of(spec.get("nodeSelector") or {}, where)
    _at_most(len(labels), RULES_PER_TERM_MAX, "labels", where)
    return [
        LabelRule(key, "In", (_text(value, f"{where}.{key}"),))
        for key, value in labels.items()
        if not (product_elsewhere and key == PRODUCT_LABEL)
    ]


def _affinity(spec: Mapping[str, object], where: str) -> list[tuple[LabelRule, ...]]:
    """The terms of which one must hold; empty where no affinity is required."""
    affinity = mapping_of(spec.get("affinity") or {}, where.partition(".nodeAffinity")[0])
    node = mapping_of(affinity.get("nodeAffinity") or {}, where.rpartition(".")[0])
    if node.get(REQUIRED) is None:
        return []
    required = mapping_of(node[REQUIRED], where)
    terms = list(mappings_of(required.get("nodeSelectorTerms"), f"{where}.nodeSelectorTerms"))
    _at_most(len(terms), TERMS_MAX, "terms", f"{where}.nodeSelectorTerms")
    read = [_term(term, field) for term, field in terms]
    chosen = [term for term in read if term]  # an empty term chooses no node, as in Kubernetes
    if not chosen:
        raise TemplateError(f"{where}.nodeSelectorTerms", "chooses no node at all")
    return chosen


def _term(term: Mapping[str, object], where: str) -> tuple[LabelRule, ...]:
    rules = [_rule(one, field) for one, field in mappings_of(term.get("matchExpressions"), f"{where}.matchExpressions")]
    for one, field in mappings_of(term.get("matchFields"), f"{where}.matchFields"):
        rule = _rule(one, field)
        if rule.key != _FIELD:
            raise TemplateError(f"{field}.key", f"{rule.key!r} is not {_FIELD}, the only field there is")
        rules.append(rule)
    _at_most(len(rules), RULES_PER_TERM_MAX, "rules", where)
    return tuple(rules)


def _rule(one: Mapping[str, object], where: str) -> LabelRule:
    operator = _text(one.get("operator"), f"{where}.operator")
    if operator not in OPERATORS:
        raise TemplateError(f"{where}.operator", f"{operator!r} is none of {', '.join(sorted(OPERATORS))}")
    listed = one.get("values") or []
    if not isinstance(listed, list):
        raise TemplateError(f"{where}.values", "must be a list")
    _at_most(len(listed), VALUES_PER_RULE_MAX, "values", f"{where}.values")
    values = tuple(sorted({_text(value, f"{where}.values") for value in listed}))
    fits = {"In": bool(values), "NotIn": bool(values), "Exists": not values, "DoesNotExist": not values}
    if not fits.get(operator, len(values) == 1 and _is_whole(values[0])):
        raise TemplateError(f"{where}.values", f"{len(values)} values do not go with the operator {operator}")
    return LabelRule(_text(one.get("key"), f"{where}.key"), operator, values)


def _tolerations(spec: Mapping[str, object], where: str) -> tuple[Toleration, ...]:
    read = [_toleration(one, field) for one, field in mappings_of(spec.get("tolerations"), where)]
    _at_most(len(read), TOLERATIONS_MAX, "tolerations", where)
    matter = {one for one in read if one.key != TOLERATED_ANYWAY and not one.key.startswith(NODE_STATE_PREFIX)}
    return tuple(sorted(one for one in matter if one.effect != "PreferNoSchedule"))


def _toleration(one: Mapping[str, object], where: str) -> Toleration:
    texts = {name: _text(one.get(name) or "", f"{where}.{name}") for name in ("key", "operator", "value", "effect")}
    operator = texts["operator"] or "Equal"
    if operator not in {"Equal", "Exists"}:
        raise TemplateError(f"{where}.operator", f"{operator!r} is neither Equal nor Exists")
    if not texts["key"] and operator != "Exists":
        raise TemplateError(f"{where}.operator", "without a key it must be Exists")
    return Toleration(texts["key"], operator, texts["value"] if operator == "Equal" else "", texts["effect"])


def mappings_of(listed: object, where: str) -> Iterator[tuple[Mapping[str, object], str]]:
    if listed is None:
        return
    if not isinstance(listed, list):
        raise TemplateError(where, "must be a list")
    for index, one in enumerate(listed):
        yield mapping_of(one, f"{where}[{index}]"), f"{where}[{index}]"


def mapping_of(value: object, field: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise TemplateError(field, "must be a mapping")
    return value


def _text(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise TemplateError(field, "must be a string")
    return value


def _is_whole(text: str) -> bool:
    return text.removeprefix("-").isascii() and text.removeprefix("-").isdigit()


def _at_most(count: int, limit: int, what: str, field: str) -> None:
    if count > limit:
        raise TemplateError(field, f"{count} {what}, at most {limit} are allowed")
