"""`python -m aim_downloader.demo [options] [-- COMMAND …]`: a Hub to try a downloader on."""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from aim_downloader.demo.cdn import Signer
from aim_downloader.demo.model import MIB, write_model
from aim_downloader.demo.repository import Catalogue, repository_of
from aim_downloader.demo.sender import Pace, PlainSender
from aim_downloader.demo.serve import Doors, serve

REPO = "demo/tiny-llama"
LOCAL = "127.0.0.1,127.0.0.2"


def main(arguments: list[str]) -> int:
    options, command = _parse(arguments)
    if options.dir is not None:
        return _run(options.dir, options, command)
    with tempfile.TemporaryDirectory(prefix="aim-demo-") as folder:
        return _run(Path(folder), options, command)


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    # By hand: argparse would look for options of ours in the command as well.
    split = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(
        prog="python -m aim_downloader.demo",
        usage="%(prog)s [options] [-- COMMAND ...]",
        description=f"Serve {REPO} from a Hub on this machine, for COMMAND or until Ctrl-C.",
    )
    parser.add_argument("--size-mib", type=int, default=256, help="size of the generated model")
    parser.add_argument(
        "--rate-mb", type=float, default=60, help="MB/s of all downloads together; 0: no limit"
    )
    parser.add_argument("--port", type=int, default=0, help="port of the Hub; 0: any free one")
    parser.add_argument(
        "--dir", type=Path, help="serve this folder; when it is empty the model is written there"
    )
    return parser.parse_args(arguments[:split]), arguments[split + 1 :]


def _run(folder: Path, options: argparse.Namespace, command: list[str]) -> int:
    if not folder.is_dir() or not any(folder.iterdir()):
        write_model(folder, size=options.size_mib * MIB)
    catalogue = Catalogue()
    catalogue.add(repository_of(REPO, folder))
    rate = options.rate_mb * 1e6 or None
    return asyncio.run(_serve(catalogue, Pace(rate), options.port, command))


async def _serve(catalogue: Catalogue, pace: Pace, port: int, command: list[str]) -> int:
    async with serve(catalogue, Signer(), PlainSender(pace), doors=Doors(port=port)) as served:
        if command:
            return await _run_command(command, client_environment(served.endpoint))
        print(f"HF_ENDPOINT={served.endpoint}  # {REPO}, until Ctrl-C", flush=True)
        await _stop_signal()
        return 0


def client_environment(endpoint: str) -> Mapping[str, str]:
    """The environment in which a client finds the Hub, past any proxy, and this `python`."""
    environment = {**os.environ, "HF_ENDPOINT": endpoint}
    for name in ("NO_PROXY", "no_proxy"):
        environment[name] = ",".join(filter(None, (os.environ.get(name), LOCAL)))
    here = str(Path(sys.executable).parent)
    environment["PATH"] = os.pathsep.join((here, os.environ.get("PATH", os.defpath)))
    return environment


async def _run_command(command: list[str], environment: Mapping[str, str]) -> int:
    try:
        process = await asyncio.create_subprocess_exec(*command, env=environment)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    loop = asyncio.get_running_loop()
    # Ctrl-C reaches the command by itself, being in our process group; it decides what follows.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    loop.add_signal_handler(signal.SIGTERM, process.terminate)
    status = await process.wait()
    return status if status >= 0 else 128 - status


async def _stop_signal() -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except OSError as error:  # most likely the port is taken
        sys.exit(f"error: the demonstration Hub cannot be started: {error.strerror or error}")
    except KeyboardInterrupt:
        sys.exit(130)
