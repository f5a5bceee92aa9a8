"""Options and argument forms that several commands share."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import click

from federation.cli.errors import CliError, ExitCode
from federation.cli.output import Format

R = TypeVar("R")

DURATION_UNITS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(s|m|h|)$")


class Duration(click.ParamType[float]):
    """`90`, `90s`, `10m`, `2h`: seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        match = _DURATION.match(str(value))
        if match is None:
            self.fail(f"{value!r} is not a duration such as 90s, 10m or 2h", param, ctx)
        return float(match[1]) * DURATION_UNITS[match[2]]


class FiniteRange(click.FloatRange):
    """A range that NaN and infinities are not in; click's own lets NaN through, and infinities where it has no end."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number", param, ctx)
        return number


def formatted(command: Callable[..., R]) -> Callable[..., R]:
    """`-o`; arrives as `form`."""
    return click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice([form.value for form in Format]),
        default=Format.TABLE.value,
        callback=lambda _ctx, _param, value: Format(value),
        help="table | wide | json | yaml | name",
        metavar="FORMAT",
    )(command)


def headed(command: Callable[..., R]) -> Callable[..., R]:
    """`--no-headers`; arrives as `headers`."""
    return click.option("--no-headers", "headers", flag_value=False, default=True, help="Rows only.")(command)


def labels_of(selectors: Sequence[str]) -> dict[str, str]:
    """`-l a=1,b=2 -l c=3` as a mapping; only equality is offered."""
    labels: dict[str, str] = {}
    for part in (part for selector in selectors for part in selector.split(",") if part):
        key, equals, value = part.replace("==", "=").partition("=")
        if not equals or not key or key.endswith("!"):
            raise CliError(f"label selector {part!r} is not key=value", "correct -l", ExitCode.USAGE)
        labels[key] = value
    return labels


def named(ref: str, *kinds: str) -> str:
    """`train` and `podgroup/train` alike, so that what `-o name` prints can be handed on."""
    kind, slash, name = ref.partition("/")
    if not slash:
        return ref
    if kind not in kinds or not name:
        raise CliError(f"{ref!r} does not name a {kinds[0]}", f"write {kinds[0]}/NAME or NAME", ExitCode.USAGE)
    return name


PODGROUP_KINDS: Final = ("podgroup", "podgroups", "pg", "pgs")
CLUSTER_KINDS: Final = ("cluster", "clusters", "cl")
