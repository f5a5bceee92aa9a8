"""The way to a Kubernetes API server: transport, reflector, PodGroup adapters, binders, guard.

A shell: no decisions here.
"""
