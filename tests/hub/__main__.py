"""`python -m tests.hub --root DIR`: each folder `DIR/owner/name` as a repository, for benchmarks.

Prints one line of JSON with its addresses when it is ready, and serves until SIGTERM or Ctrl-C.
"""

import argparse
import json
import signal
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from tests.hub.log import RequestRecord
from tests.hub.server import HubServer
from tests.xet import XetFront, XetStore


def main() -> None:
    options = _parse()
    stopping = {signal.SIGINT, signal.SIGTERM}
    with ExitStack() as stack:
        # Before signals are blocked: what ends the store is one, and a child inherits the mask.
        store = stack.enter_context(XetStore(options.xet)) if options.xet else None
        # Blocked before the servers' threads begin, which inherit it: the signal waits for sigwait.
        signal.pthread_sigmask(signal.SIG_BLOCK, stopping)
        xet = stack.enter_context(XetFront(store, xorbs=options.xorbs_base)) if store else None
        hub = stack.enter_context(
            HubServer(port=options.endpoint_port, cdn_base=options.cdn_base, xet=xet)
        )
        for server in filter(None, (hub, xet)):
            server.pace(options.pace)
        repositories = [
            hub.add_folder(folder.relative_to(options.root).as_posix(), folder).id
            for folder in sorted(options.root.glob("*/*/"))
        ]
        ready = {"endpoint": hub.endpoint, "cdn": hub.cdn, "repositories": repositories}
        print(json.dumps(ready), flush=True)
        signal.sigwait(stopping)
        if options.log:
            records = hub.log + (xet.log if xet else [])
            options.log.write_text("".join(_lines(records)), encoding="utf-8")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.hub", description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--endpoint-port", type=int, default=0)
    parser.add_argument("--cdn-base", help="send large files to URL/<sha256>")
    parser.add_argument("--xet", type=Path, help="large files are in a Xet store here, too")
    parser.add_argument("--xorbs-base", help="data of the Xet store is at URL/default.<hash>")
    parser.add_argument("--pace", type=float, help="bytes per second of all downloads together")
    parser.add_argument("--log", type=Path, help="write the request log here at the end")
    return parser.parse_args()


def _lines(records: Iterable[RequestRecord]) -> Iterable[str]:
    for record in records:
        plain = {**vars(record), "headers": dict(record.headers), "query": dict(record.query)}
        yield json.dumps(plain) + "\n"


if __name__ == "__main__":
    main()
