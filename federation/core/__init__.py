"""What the placer knows and decides: records, the fold, placing, admission, failover. Events in, effects out.

Pure: no I/O, clock, randomness or logging; `federation.server` carries the effects out.
"""
