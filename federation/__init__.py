"""The federation: the placer over the whole fleet, the server it runs in, and the `muster` command.

Knows clusters only by what their agents say. Never imports `cluster_agents`.
"""
