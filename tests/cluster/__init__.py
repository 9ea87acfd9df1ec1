"""A Kubernetes of one node, in namespaces of its own; for people: `python -m tests.cluster`."""

from tests.cluster.client import Cluster, KubectlError

__all__ = ["Cluster", "KubectlError"]
