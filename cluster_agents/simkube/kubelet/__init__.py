"""The simulated kubelets and guards of one cluster: a pure core. See `kubelets.Kubelets`; no I/O anywhere below."""

from cluster_agents.simkube.kubelet.kubelets import Kubelets
from cluster_agents.simkube.kubelet.types import NodeShape, Timing

__all__ = ["Kubelets", "NodeShape", "Timing"]
