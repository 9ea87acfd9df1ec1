"""What went wrong, for people: in a line, and one more for each of several protocols."""

from __future__ import annotations

from aim_downloader.errors import AllProtocolsFailedError


def error_lines(error: BaseException) -> list[str]:
    """The error in one line or more."""
    if not isinstance(error, AllProtocolsFailedError) or len(error.attempts) < 2:
        return [str(error) or type(error).__name__]
    # The first line names the file.
    of_file = f"{error.path}: "
    tried = [f"{name}: {str(reason).removeprefix(of_file)}" for name, reason in error.attempts]
    return [f"{error.path} could not be downloaded in {len(tried)} attempts", *tried]
