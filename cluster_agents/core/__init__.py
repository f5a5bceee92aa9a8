"""What an agent decides: reconciling, inventory, gang binding and undo, ledger, fence. Events in, effects out.

Pure: no I/O, clock, randomness or logging; `cluster_agents.kubernetes` carries the effects out.
"""
