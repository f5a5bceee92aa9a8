"""Which nodes a pod may stand on by their labels and taints, as Kubernetes' scheduler reads affinity and tolerations.

For all nodes of a layout at once. Reading a pod template is `placement.requests`', room on nodes `placement.fleet`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from placement.model import LabelRule, NodeRule, Taint, Toleration

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

ABSENT: Final = None  # a node does not carry the label

OPERATORS: Final = frozenset({"In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"})


class LabelledNodes(Protocol):
    """Nodes with the labels and taints that are known of them."""

    def __len__(self) -> int: ...

    def label_values(self, key: str) -> tuple[Sequence[str | None], Ints]:
        """The different values of a label (ABSENT among them), and for each node which it has."""

    @property
    def taint_lists(self) -> tuple[Sequence[tuple[Taint, ...]], Ints]:
        """The different lists of taints, and for each node which it has."""


def suitable(nodes: LabelledNodes, rules: Sequence[NodeRule]) -> Bools:
    """The nodes that satisfy every one of `rules`; without any, those without taints. O(nodes) per label named."""
    found = np.ones(len(nodes), dtype=np.bool_)
    for rule in rules or (NodeRule(),):
        found &= untainted(nodes, rule.tolerations)
        if rule.terms:
            found &= labelled(nodes, rule)
    return found


def labelled(nodes: LabelledNodes, rule: NodeRule) -> Bools:
    """The nodes with the labels that one of the terms asks for."""
    if not rule.terms:
        return np.ones(len(nodes), dtype=np.bool_)
    found = np.zeros(len(nodes), dtype=np.bool_)
    for term in rule.terms:
        here = np.ones(len(nodes), dtype=np.bool_)
        for one in term:
            values, at = nodes.label_values(one.key)
            here &= np.array([holds(one, value) for value in values], dtype=np.bool_)[at]
        found |= here
    return found


def untainted(nodes: LabelledNodes, tolerations: Sequence[Toleration]) -> Bools:
    """The nodes whose taints are all tolerated."""
    lists, at = nodes.taint_lists
    return np.array([tolerated(taints, tolerations) for taints in lists], dtype=np.bool_)[at]


def holds(rule: LabelRule, value: str | None) -> bool:
    """Whether a node with this value of the label satisfies the rule. An unknown operator holds nowhere."""
    match rule.operator:
        case "In":
            return value in rule.values
        case "NotIn":
            return value not in rule.values
        case "Exists":
            return value is not ABSENT
        case "DoesNotExist":
            return value is ABSENT
        case "Gt" | "Lt":
            return _compares(rule, value)
        case _:
            return False


def _compares(rule: LabelRule, value: str | None) -> bool:
    """Labels are compared as whole numbers; what is none compares with nothing."""
    try:
        has, asked = int(value or ""), int(rule.values[0])
    except (ValueError, IndexError):
        return False
    return has > asked if rule.operator == "Gt" else has < asked


def tolerated(taints: Sequence[Taint], tolerations: Sequence[Toleration]) -> bool:
    return all(any(tolerates(one, taint) for one in tolerations) for taint in taints)


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """Kubernetes' rule: an empty key (with Exists) and an empty effect match all."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    if toleration.operator == "Exists":
        return True
    return bool(toleration.key) and toleration.operator == "Equal" and toleration.value == taint.value


def shortfall(nodes: LabelledNodes, rules: Sequence[NodeRule], among: Bools) -> str:
    """Why none of the nodes `among` suits, in numbers: "of 4 nodes 2 lack zone=a, 1 has the taint k=v:NoSchedule"."""
    rule = rules[0] if rules else NodeRule()
    has_labels, no_taint = labelled(nodes, rule) & among, untainted(nodes, rule.tolerations)
    lacking = int(among.sum()) - int(has_labels.sum())
    parts = [f"{lacking} lack {_asked(rule)}"] if lacking else []
    counts = _taints_counted(nodes, has_labels & ~no_taint, rule.tolerations)
    parts.extend(f"{count} {'has' if count == 1 else 'have'} the taint {text}" for text, count in counts.items())
    return f"of {int(among.sum())} nodes {', '.join(parts)}"


def _asked(rule: NodeRule) -> str:
    return " or ".join(" and ".join(rule_text(one) for one in term) for term in rule.terms)


def rule_text(rule: LabelRule) -> str:
    """A rule as people would say it."""
    match rule.operator, rule.values:
        case "In", (value,):
            return f"{rule.key}={value}"
        case (("Exists" | "DoesNotExist"), _):
            return f"{'' if rule.operator == 'Exists' else 'no '}{rule.key}"
        case _:
            return f"{rule.key} {rule.operator} {'|'.join(rule.values)}"


def _taints_counted(nodes: LabelledNodes, among: Bools, tolerations: Sequence[Toleration]) -> Mapping[str, int]:
    """Nodes by the first taint that is not tolerated."""
    lists, at = nodes.taint_lists
    counts: dict[str, int] = {}
    for number, count in enumerate(np.bincount(at[among], minlength=len(lists)).tolist()):
        first = next((one for one in lists[number] if not tolerated((one,), tolerations)), None)
        if first is not None and count:
            counts[str(first)] = counts.get(str(first), 0) + count
    return dict(sorted(counts.items()))
