"""Benchmarks of running processes: a fleet in a temporary folder, load over HTTP, and what each process used.

Measuring from outside only; the placer alone, in one process, is `federation.simulate`'s.
"""
