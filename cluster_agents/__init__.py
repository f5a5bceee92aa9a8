"""The agent of one member cluster: inventory, gang binding and the fence; and a simulated cluster to run it against.

Of the federation it imports `federation.protocol` only, and `placement` for the shared vocabulary and `assign`.
"""
