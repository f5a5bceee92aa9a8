"""`muster store …`: reading, proving, copying and moving a store, by address or through the server that has it open.

The only part of the CLI that touches stores. What the journal's bytes mean is `storage`'s and `federation.core`'s.
"""
