"""The addresses inside the network of a cluster: always the same, as no two networks meet."""

NODE = "10.99.0.1"
# Where pods find the test Hub, its CDN, and the Xet store's data: hosts apart, as in the world.
HUB = "10.99.0.2"
CDN = "10.99.0.3"
XORBS = "10.99.0.4"
SERVICES = "10.96.0.0/24"
API_SERVER = "10.96.0.1"  # the first of the services, which pods are told
NO_DNS = "10.96.0.10"  # is there, and refuses: no name is known, and that at once
PODS = "10.244.0.0/24"

OURS = (NODE, HUB, CDN, XORBS, API_SERVER, NO_DNS)
