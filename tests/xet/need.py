"""What becomes of tests that need the Xet store where it was not built."""

import os

import pytest

from tests.xet.store import server_path


def need_server() -> None:
    """Skips the test without a store; where everything must run, that is a failure."""
    path = server_path()
    if path.exists():
        return
    reason = f"there is no {path}: tests/setup-servers builds it"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
