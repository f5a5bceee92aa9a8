"""A simulated member cluster: pure `apiserver` and `kubelet` cores with an HTTP shell.

Holds nothing that a real agent would not see in a real cluster.
"""
