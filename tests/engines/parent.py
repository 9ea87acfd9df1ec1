"""A program with an engine: it orders what its arguments say, and tells as JSON lines."""

import asyncio
import json
import sys
from typing import Any

from aim_downloader.errors import DownloadCancelledError
from aim_downloader.signals import run_until_signalled
from aim_downloader.worker import Worker


def tell(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


async def main() -> None:
    worker = await Worker.start("tests.engines.script", environ={}, on_message=tell)
    try:
        for order in sys.argv[1:]:
            worker.send(json.loads(order))
        await asyncio.wait([worker.ended])
        error = worker.ended.result()
        tell({"kind": type(error).__name__, "words": str(error)})
    finally:
        await worker.end()


if __name__ == "__main__":
    try:
        run_until_signalled(main())
    except DownloadCancelledError as error:
        sys.exit(error.exit_code)
