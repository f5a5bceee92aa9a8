"""The `muster` command: calls the `muster` client and renders.

Never opens the store, except in `muster store`.
"""
