"""What a cluster is like beside its nodes: what a GPU hour costs there, how dirty its power is, which data lie there.

Operators say it by cluster labels. Here they are read and compared; how much they weigh is `placement.score.Policy`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum, unique
from typing import Final

import numpy as np

from placement.layout import Ints

PRICE_LABEL: Final = "muster.io/gpu-hour-cents"
CARBON_LABEL: Final = "muster.io/carbon-g-per-kwh"
DATA_LABEL_PREFIX: Final = "data.muster.io/"  # and the data set's name; the value says nothing
NUMBER_LABELS: Final = (PRICE_LABEL, CARBON_LABEL)

NUMBER_MAX: Final = 1_000_000  # of either: ten thousand dollars an hour, a tonne per kWh; more is a typing error
DATA_UNSAID_GIB: Final = 64  # counts for a data set that does not say how large it is
MISSING_GIB_MAX: Final = 1 << 16  # 64 TiB: what is farther away than that is simply far
DATA_KEPT_MAX: Final = 1_000  # lists of data sets whose answer is kept

Data = tuple[tuple[str, int], ...]
"""Data sets that a gang reads: name and size in GiB, 0 where it is not said."""

Labels = Mapping[str, str]


@unique
class SiteTerm(StrEnum):
    """The score terms made here; see `placement.score.Policy` for their weights."""

    PRICE = "price"
    CARBON = "carbon"
    DATA_MISSING = "data_missing"
    FAILURE_SPREAD = "failure_spread"  # made in `placement.beside`


SiteTerms = tuple[tuple[SiteTerm, Ints], ...]
"""A column per term, a row per cluster that was asked for. Terms that are 0 everywhere are left out."""


def number_in(text: str) -> int | None:
    """A label's whole number, 0 to NUMBER_MAX; None for anything else."""
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(NUMBER_MAX))):
        return None
    return int(text) if int(text) <= NUMBER_MAX else None


class Sites:
    """The same columns for every cluster, in the caller's order.

    `prices` (cents per GPU hour) and `carbon` (grams of CO2 per kWh) are above the least that any cluster says; one
    that says nothing counts as the highest that says something: silence is no way to be chosen.
    """

    __slots__ = ("_labels", "_missing", "_said", "carbon", "prices")

    def __init__(self, labels: Sequence[Labels] = ()) -> None:
        self._labels = tuple(labels)
        self._missing: dict[Data, Ints] = {}
        self.prices = self._above_least(PRICE_LABEL)
        self.carbon = self._above_least(CARBON_LABEL)
        said = (SiteTerm.PRICE, self.prices), (SiteTerm.CARBON, self.carbon)
        self._said: SiteTerms = tuple((term, column) for term, column in said if column.any())

    def are_of(self, labels: Sequence[Labels]) -> bool:
        """Whether they were made of equal labels."""
        return len(labels) == len(self._labels) and all(
            one is other or one == other for one, other in zip(labels, self._labels, strict=True)
        )

    def terms(self, data: Data, clusters: Ints) -> SiteTerms:
        """What the score needs of each of `clusters`, for a gang that reads `data`."""
        said = self._said
        if data:
            said = (*said, (SiteTerm.DATA_MISSING, self.missing_gib(data)))
        return tuple((term, column[clusters]) for term, column in said)

    def missing_gib(self, data: Data) -> Ints:
        """Per cluster how many GiB of `data` are not there."""
        found = self._missing.get(data)
        if found is None:
            if len(self._missing) >= DATA_KEPT_MAX:
                self._missing.clear()
            sizes = [(name, size or DATA_UNSAID_GIB) for name, size in data]
            sums = [sum(size for name, size in sizes if not _lies_in(one, name)) for one in self._labels]
            found = self._missing[data] = np.array([min(one, MISSING_GIB_MAX) for one in sums], dtype=np.int64)
        return found

    def _above_least(self, label: str) -> Ints:
        numbers = [number_in(one.get(label, "")) for one in self._labels]
        said = [number for number in numbers if number is not None]
        if not said:
            return np.zeros(len(numbers), dtype=np.int64)
        least, most = min(said), max(said)
        return np.array([(most if number is None else number) - least for number in numbers], dtype=np.int64)


def _lies_in(labels: Labels, name: str) -> bool:
    return DATA_LABEL_PREFIX + name in labels
