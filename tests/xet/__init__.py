"""The Xet store for tests: Hugging Face's own server, and a front before it that can go wrong."""

from tests.xet.front import XetFront
from tests.xet.store import XetStore

__all__ = ["XetFront", "XetStore"]
