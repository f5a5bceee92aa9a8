"""Whatever is wrong with a manifest, as people are told it: a reason code, the field, what was found, what to do.

One reading for the server and for the CLI, so that both say the same. Which errors there are is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from federation.manifests.strict import ManifestError
from placement.model import MisfitError
from placement.pod_wishes import NotHonouredError
from placement.requests import TemplateError

ERRORS_SHOWN_MAX: Final = 3  # the first few are what people mend first
INPUT_CHARS_MAX: Final = 40
FIELD_CHARS_MAX: Final = 128  # a field is for finding the place; strangers' keys can be of any length
DETAIL_CHARS_MAX: Final = 512

BAD_MANIFEST: Final = (ManifestError, ValidationError, TemplateError)

_OUT_OF_RANGE: Final = frozenset(
    {
        *("greater_than", "greater_than_equal", "less_than", "less_than_equal"),
        *("too_short", "too_long", "string_too_short", "string_too_long"),
    }
)
_SAYS_ENOUGH: Final = frozenset({"missing", "extra_forbidden"})  # the value adds nothing

REMEDY: Final = {
    "UnknownField": "leave the field out, or correct its name",
    "MissingField": "add the field",
    "BadType": "write a value of the type that is named",
    "OutOfRange": "stay within the bounds",
    "BadTemplate": "correct the pod template",
    "UnknownKind": "submit one of the kinds that are read",
    "NotAGang": "make it a gang: all its pods run at once",
    "NotTaken": "leave it out: Muster cannot honour it",
    "DuplicateKey": "keep one of the two",
    "AliasRefused": "write the value out",
    "TooLarge": "send less at a time",
    "TooMany": "send less at a time",
    "TooDeep": "nest less deeply",
    "NotFinite": "write a finite number",
    "BadYaml": "correct the YAML",
    "BadJson": "correct the JSON",
}
REMEDY_OTHERWISE: Final = "correct the value"


@dataclass(frozen=True, slots=True)
class Fault:
    """`detail` names the limit and the value, and starts with the field where there is one."""

    reason: str
    field: str
    detail: str

    @property
    def remedy(self) -> str:
        return REMEDY.get(self.reason, REMEDY_OTHERWISE)


def fault_of(error: ManifestError | ValidationError | TemplateError) -> Fault:
    """The fault, in printable text of bounded length."""
    match error:
        case ManifestError():
            return _fault(error.reason, error.field, str(error))
        case NotHonouredError():
            return _fault("NotTaken", error.field, str(error))
        case TemplateError():
            return _fault("BadTemplate", error.field, str(error))
        case _:
            return _of_model(error)


def _of_model(error: ValidationError) -> Fault:
    return fault_of_items(error.errors(include_url=False))


def fault_of_items(items: Sequence[Any]) -> Fault:
    """The fault that pydantic describes by these (at least one)."""
    items = [item for item in items if not _follows_from_another(item, items)]
    shown = [_line(item) for item in items[:ERRORS_SHOWN_MAX]]
    more = len(items) - len(shown)
    detail = "; ".join(shown) + (f"; and {more} more" if more > 0 else "")
    return _fault(_reason(items[0]["type"]), _place(items[0]), detail)


def _follows_from_another(item: Any, items: Sequence[Any]) -> bool:
    """Whether a list is called too short only because what is wrong inside of it was left out."""
    place = tuple(item["loc"])
    inside = [one for one in items if len(one["loc"]) > len(place) and tuple(one["loc"])[: len(place)] == place]
    return item["type"] == "too_short" and bool(inside)


def _fault(reason: str, where: str, detail: str) -> Fault:
    return Fault(reason, clipped(where, FIELD_CHARS_MAX), clipped(detail, DETAIL_CHARS_MAX))


def _line(item: Any) -> str:
    value = repr(item["input"])
    got = f" (got {value})" if len(value) <= INPUT_CHARS_MAX and item["type"] not in _SAYS_ENOUGH else ""
    return f"{_place(item) or 'manifest'}: {item['msg'].removeprefix('Value error, ')}{got}"


def _reason(kind: str) -> str:
    """pydantic's kind of error as one of ours."""
    if kind == "extra_forbidden":
        return "UnknownField"
    if kind == "missing":
        return "MissingField"
    if kind in _OUT_OF_RANGE:
        return "OutOfRange"
    return "BadType" if kind.endswith(("_type", "_parsing", "_from_float", "_attributes_type")) else "BadValue"


def _place(item: Any) -> str:
    """`roles[0].count`; an error between fields says itself which of them is to blame."""
    blamed = item.get("ctx", {}).get("error")
    parts = [*item["loc"], *([blamed.field] if isinstance(blamed, MisfitError) else [])]
    return joined(part for part in parts if part != "[key]")


def joined(parts: Iterable[int | str]) -> str:
    """A path as people write it."""
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def clipped(text: str, chars_max: int) -> str:
    """`text` without what a terminal would act on, and no longer than asked."""
    plain = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    return plain if len(plain) <= chars_max else plain[: chars_max - 1] + "…"
