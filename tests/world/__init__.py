"""The deterministic world: the product's real cores under virtual time, where one integer decides everything.

`python -m tests.world --seeds A:B --minutes M [--mutant NAME] -o json` runs it; `docs/world.md` says how to read it.
"""
