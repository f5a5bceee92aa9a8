"""Trace replay, what-if and benchmarks in one process, from the same cores as production.

Never a second scheduler.
"""
