"""YAML and JSON of strangers, read strictly: no aliases, no duplicate keys, bounded size and depth, JSON's scalars.

`no` stays a string, `017` and `12:30:45` too; NaN and infinities are refused. What the document means is decided by the
dialects beside this file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Hashable
from typing import Any, Final, NoReturn

import yaml

MANIFEST_BYTES_MAX: Final = 256 * 1024  # DESIGN §15
DEPTH_MAX: Final = 32  # pod templates need about 12
DOCUMENTS_MAX: Final = 1_000  # one bulk submit
NODES_MAX: Final = 50_000  # values in one manifest; a 10,000-pod gang needs a few hundred

Document = dict[str, Any]


class ManifestError(ValueError):
    """The manifest cannot be taken: `field` names where, `reason` is the stable code, the text says limit and value."""

    def __init__(self, reason: str, detail: str, field: str = "") -> None:
        super().__init__(f"{field}: {detail}" if field else detail)
        self.reason = reason
        self.detail = detail
        self.field = field


class _Loader(yaml.CSafeLoader):
    """Safe constructors with JSON's scalars; duplicate keys are errors."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own protocol

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            line = key_node.start_mark.line + 1
            if key is None or key_node.tag != "tag:yaml.org,2002:str":
                raise ManifestError("BadKey", f"line {line}: keys are strings", key or "")
            if key in seen:
                raise ManifestError("DuplicateKey", f"line {line}: key {key!r} occurs twice", key)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:null|~|)$"), ["n", "~", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^-?(?:0|[1-9]\d{0,18})$"), list("-0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?$"), list("-0123456789")
)


def read_yaml(text: str) -> list[Document]:
    """The mappings in `text`, one per document; ManifestError says what is not acceptable and where."""
    _check_size(len(text.encode()))
    try:
        _check_events(text)
        documents = [document for document in yaml.load_all(text, Loader=_Loader) if document is not None]
    except yaml.YAMLError as error:
        raise ManifestError("BadYaml", " ".join(str(error).split())) from error
    if not documents:
        raise ManifestError("EmptyManifest", "there is no document in it")
    for document in documents:
        check_document(document)
    return documents


def read_json(body: bytes, *, bytes_max: int = MANIFEST_BYTES_MAX, nodes_max: int = NODES_MAX) -> Any:
    """JSON without duplicate keys, NaN, infinities or deep nesting."""
    _check_size(len(body), bytes_max)
    try:
        value = json.loads(body, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except ManifestError:
        raise
    except RecursionError:
        raise ManifestError("TooDeep", f"nested deeper than {DEPTH_MAX}") from None
    except UnicodeDecodeError as error:
        raise ManifestError("BadJson", f"not UTF-8: {error.reason}") from error
    except json.JSONDecodeError as error:
        raise ManifestError("BadJson", f"line {error.lineno} column {error.colno}: {error.msg}") from error
    except ValueError as error:  # an integer of thousands of digits
        raise ManifestError("BadJson", str(error).partition(";")[0]) from error
    _check_values(value, nodes_max)
    return value


def check_document(document: object) -> Document:
    """`document` as a mapping of finite values within the depth limit."""
    if not isinstance(document, dict):
        raise ManifestError("NotAMapping", f"a manifest is a mapping, not {type(document).__name__}")
    _check_values(document)
    return document


def _check_size(size: int, limit: int = MANIFEST_BYTES_MAX) -> None:
    if size > limit:
        raise ManifestError("TooLarge", f"{size} bytes, at most {limit} are read")


def _check_events(text: str) -> None:
    """Refuse aliases and depth before anything is built, so that a bomb costs nothing."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ManifestError("AliasRefused", f"line {line}: anchors and aliases are not read")
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEPTH_MAX:
            raise ManifestError("TooDeep", f"line {line}: nested deeper than {DEPTH_MAX}")
        if documents > DOCUMENTS_MAX:
            raise ManifestError("TooMany", f"more than {DOCUMENTS_MAX} documents")


def _check_values(value: object, nodes_max: int = NODES_MAX) -> None:
    count = 0
    stack: list[tuple[object, int]] = [(value, 1)]
    while stack:
        item, depth = stack.pop()
        count += 1
        if count > nodes_max:
            raise ManifestError("TooLarge", f"more than {nodes_max} values")
        if depth > DEPTH_MAX:
            raise ManifestError("TooDeep", f"nested deeper than {DEPTH_MAX}")
        if isinstance(item, float) and not math.isfinite(item):
            raise ManifestError("NotFinite", "NaN and infinities are not numbers here")
        if isinstance(item, dict):
            stack.extend((child, depth + 1) for child in item.values())
        elif isinstance(item, list):
            stack.extend((child, depth + 1) for child in item)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> Document:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ManifestError("DuplicateKey", f"key {key!r} occurs twice", key)
            seen.add(key)
    return mapping


def _no_constant(name: str) -> NoReturn:
    raise ManifestError("NotFinite", f"{name} is not a number here")
