"""The Hub for tests: repositories, scripted faults and a request log."""

from tests.hub.log import RequestRecord
from tests.hub.server import HubServer

__all__ = ["HubServer", "RequestRecord"]
