"""How many groups that ought not to fail together each cluster holds already, with its failure domain: those of one
namespace with the same `failure_spread`.

Only where the next one should rather go is said here; how much it weighs is `placement.score.Policy`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from placement.fleet import Fleet
from placement.layout import Ints
from placement.model import ClusterName
from placement.sites import SiteTerm, SiteTerms

REGION_LABEL: Final = "region"  # of a cluster: those with one value may fail together; without it, by itself
BESIDE_MAX: Final = 4_096  # more than the fewest: what has so many beside it is simply full of them

Beside = Mapping[str, Mapping[ClusterName, int]]
"""By key (namespace and `failure_spread`) and cluster, how many groups have their home there."""

NO_KIN: Final[Beside] = {}


class Kin:
    """Of one cycle. Nothing is worked out until a group with a key is looked at."""

    __slots__ = ("_beside", "_columns", "_fleet", "_names", "_taken")

    def __init__(self, fleet: Fleet, names: Sequence[ClusterName], beside: Beside) -> None:
        """Columns have a row for each of `names`; those that the fleet lacks are in no region."""
        self._fleet = fleet
        self._names = names
        self._beside = beside
        self._taken: dict[str, dict[ClusterName, int]] = {}
        self._columns: dict[str, Ints] = {}

    def terms(self, key: str, clusters: Ints) -> SiteTerms:
        """Of each of `clusters` how many groups more than the fewest are in it and in its region; one in the cluster
        counts for both."""
        if not key:
            return ()
        column = self._columns.get(key)
        if column is None:
            column = self._columns[key] = self._column(key)
        return ((SiteTerm.FAILURE_SPREAD, column[clusters]),) if column.any() else ()

    def took(self, key: str, cluster: ClusterName) -> None:
        """One more has its place there."""
        if key:
            taken = self._taken.setdefault(key, {})
            taken[cluster] = taken.get(cluster, 0) + 1
            self._columns.pop(key, None)

    def _column(self, key: str) -> Ints:
        homes, taken = self._beside.get(key, {}), self._taken.get(key, {})
        here = {name: homes.get(name, 0) + taken.get(name, 0) for name in self._fleet}
        regions = {name: view.labels.get(REGION_LABEL, "") for name, view in self._fleet.items()}
        in_region: dict[str, int] = {}
        for name, count in here.items():
            in_region[regions[name]] = in_region.get(regions[name], 0) + count
        both = {name: count + (in_region[regions[name]] if regions[name] else count) for name, count in here.items()}
        fewest = min(both.values(), default=0)
        return np.array([min(both.get(name, fewest) - fewest, BESIDE_MAX) for name in self._names], dtype=np.int64)
