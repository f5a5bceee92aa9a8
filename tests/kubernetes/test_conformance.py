"""The cases that simkube is held to, against Kubernetes itself: what an agent relies on is what a cluster does."""

from tests.contract.test_binding_rules import *  # noqa: F403
from tests.contract.test_cluster_rules import *  # noqa: F403
