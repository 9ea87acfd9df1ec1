"""Start and end of the program. A start imports only what it needs; ``--version`` needs nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import sys


def main() -> None:
    """Run the command line and leave with its exit code."""
    # The first thing of all. A container's first process is not ended by a signal that it does not
    # handle, and the signal is sent once, also while imports take their time. Runs have their own.
    signal.signal(signal.SIGTERM, lambda number, _frame: os._exit(128 + number))
    if sys.argv[1:] == ["--version"]:
        from aim_downloader._version import __version__

        sys.stdout.write(f"aim-downloader {__version__}\n")
        return
    _leave(_run())


def _run() -> int:
    try:
        from aim_downloader.cli import run

        return run(sys.argv[1:])
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141  # what the shell makes of SIGPIPE
    except Exception:  # noqa: BLE001  # told as the interpreter would; then we leave our way
        sys.excepthook(*sys.exc_info())
        return 1


def _leave(code: int) -> None:
    """Leave without waiting for threads, which may be inside a read from a silent server."""
    if logging := sys.modules.get("logging"):
        logging.shutdown()
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None: closed before the start
        with contextlib.suppress(OSError):  # nobody reads any more
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
