"""`python -m tests.cluster`: a Kubernetes of one node to play with, until Ctrl-C."""

import argparse
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

from tests.cluster import programs
from tests.cluster.client import Cluster
from tests.cluster.supervisor import serve, supervised


def main() -> int:
    options = _parse()
    trouble = programs.trouble(node=options.node)
    if trouble:
        print(f"tests.cluster: {trouble}", file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell starts others with SIGINT ignored
        signal.signal(number, _leave)
    try:
        if options.meeting:
            serve(options.meeting)
        else:
            _show(node=options.node)
    except KeyboardInterrupt:
        print("The cluster is gone.")
    return 0


def _show(*, node: bool) -> None:
    what = "a cluster of one node" if node else "the control plane of a cluster"
    _say(f"Starting {what}; that takes some seconds.")
    with supervised() as started, ExitStack() as stack:
        guide = f"\nexport KUBECONFIG={started.kubeconfig}\n\nCtrl-C ends it."
        if node:
            # A supervisor of tests needs none of it.
            from tests.cluster.playground import furnished

            started.start_node()
            cluster = Cluster(started.kubeconfig, started.pid, node=True)
            guide = stack.enter_context(furnished(cluster, _say))
        _say(guide)
        signal.pause()


def _say(line: str) -> None:
    print(line, flush=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument(
        "--no-node", dest="node", action="store_false", help="the control plane alone"
    )
    parser.add_argument(
        "--meeting", type=Path, metavar="DIR", help="for the tests that meet in this folder"
    )
    return parser.parse_args()


def _leave(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
