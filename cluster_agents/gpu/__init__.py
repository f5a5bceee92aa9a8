"""The GPUs of one node, as its driver tells of them: the NVML probe, a process of its own beside the node's guard.

Reads and reports; decides nothing. How many devices a cluster gives away is read from its Node objects, in
`cluster_agents.core.inventory`; ResourceSlices (DRA) are not read so far.
"""
