"""The stages of a gang's life in one cluster; what happens in each is told in `binding`."""

from enum import StrEnum, unique
from typing import Final


@unique
class Stage(StrEnum):
    BUILDING = "building"
    BINDING = "binding"
    WHOLE = "whole"
    GIVING_UP = "giving-up"
    UNDOING = "undoing"
    ENDED = "ended"
    LANDED = "landed"
    CLEANING = "cleaning"
    GONE = "gone"


GROWING: Final = frozenset({Stage.BUILDING, Stage.BINDING})
LIVING: Final = GROWING | {Stage.WHOLE}
CONTAINERS_OVER: Final = frozenset({Stage.ENDED, Stage.LANDED, Stage.CLEANING, Stage.GONE})
