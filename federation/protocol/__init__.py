"""All that agent and server share: subjects, wire messages, stamps, lease rules, the bus port and its NATS client.

Decisions live in the cores of either side, not here.
"""
