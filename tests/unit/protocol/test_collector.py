"""Looking for cycles rarely is for a server's process, and for as long as somebody measures as if in one."""

from __future__ import annotations

import gc

from federation.protocol.collector import MIDDLE_MAX, OLD_MAX, YOUNG_MAX, calmly


def test_calm_for_a_while_leaves_all_as_it_was() -> None:
    gc.unfreeze()  # whatever another test has frozen: nobody can freeze that alone again
    before = gc.get_threshold(), gc.get_freeze_count()
    with calmly():
        assert gc.get_threshold() == (YOUNG_MAX, MIDDLE_MAX, OLD_MAX)
        assert gc.get_freeze_count() > 0
    assert (gc.get_threshold(), gc.get_freeze_count()) == before
