"""Every step that can happen in, or be recorded about, one cluster.

No step reads the other cluster: all that the two share is the journal. Delay, loss, repetition and reordering need no
queue: a desired-state answer can come from any prefix of the journal, a sent verdict can land at any later time and
again, its reply can come at any time after that, and a message that never comes is a step not taken. A crash may come
at any time, any number of times.
"""

from collections.abc import Iterator

from tests.model.agent import lease_steps, pod_steps, verdict_steps, write_steps
from tests.model.leader import admission_steps, confirm_dead_steps, fence_steps, landing_steps, place_steps
from tests.model.rules import Setting
from tests.model.state import Site

Step = tuple[str, Site]


def steps(setting: Setting, site: Site) -> Iterator[Step]:
    """All steps possible at this site, as (what happens, site after)."""
    if site.cluster.copies:  # before that nothing depends on the lease, and a renewal can as well come later
        yield from lease_steps(setting, site)
    for copy in site.cluster.copies:
        yield from write_steps(setting, site, copy)
        yield from pod_steps(setting, site, copy)
        yield from verdict_steps(setting, site, copy)
        yield from landing_steps(setting, site, copy)
    yield from place_steps(setting, site)
    yield from fence_steps(setting, site)
    yield from admission_steps(setting, site)
    yield from confirm_dead_steps(setting, site)
