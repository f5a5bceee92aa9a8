"""The node guard of a real cluster: a process on every node that lets containers of ours start and stops them.

It asks the cluster's agent how long placements may run on, and needs no API server (DESIGN §11, decision 0023).
"""
