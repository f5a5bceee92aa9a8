"""The home rule as a small explicit-state model: two clusters, one group, every interleaving.

This is the specification, not the product: nothing here imports the product's packages. `python -m tests.model`
prints the figures and the counterexamples that `docs/home-rule.md` quotes.
"""
