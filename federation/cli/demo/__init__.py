"""`muster demo`: real gangs of a real trace on three simulated clusters, one of which is cut, then another drained.

`play` is the script, `checks` compares what was acknowledged with what really ran. Nothing here decides for the fleet.
"""
