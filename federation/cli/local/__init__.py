"""A whole fleet on one machine: broker, server, agents and simulated clusters as child processes on loopback.

Processes, ports and files only; what the parts do is theirs. Tests use `fleet.LocalFleet` to kill and restart them.
"""
