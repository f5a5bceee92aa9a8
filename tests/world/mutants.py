"""Planted bugs: each breaks one rule of the product by replacing one function while a seed runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

Patch = tuple[Any, str, Any]  # where, name, what stands there instead

MUTANTS: Final[dict[str, Callable[[], list[Patch]]]] = {}


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The product with this bug ("" for none) inside the block, and without it afterwards."""
    patches = MUTANTS[name]() if name else []
    before = [(where, attribute, getattr(where, attribute)) for where, attribute, _ in patches]
    for where, attribute, instead in patches:
        setattr(where, attribute, instead)
    try:
        yield
    finally:
        for where, attribute, original in before:
            setattr(where, attribute, original)
