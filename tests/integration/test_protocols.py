"""What every protocol promises, alike: right bytes, little lost by a kill, and a clean end."""

import itertools
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from aim_downloader.events import FileStarted
from tests.hub import HubServer, faults
from tests.integration.support import (
    HIDDEN,
    MIB,
    TOKEN,
    Command,
    Downloader,
    Files,
    assert_snapshot,
    children,
    digest,
    names_below,
    total_size,
    wait_until,
)
from tests.xet import XetFront, XetStore

PROTOCOLS = ("XET", "HF_TRANSFER", "HTTP")
ENGINES = PROTOCOLS[:2]
NAME, LONG = "model.safetensors", "long.safetensors"
CONNECTIONS = 4
# Bytes that a kill may cost. XET: what one child has in flight.
PER_KILL = {
    "HTTP": CONNECTIONS * 2 * MIB + 8 * MIB,
    "HF_TRANSFER": CONNECTIONS * 2 * MIB + 8 * MIB,
    "XET": 64 * MIB + 8 * MIB,
}
FAILING = faults.RedirectLoop()
"""What a host may answer that no second try cures."""

linux_only = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")


@pytest.fixture(scope="session")
def long_model(xet_store: XetStore) -> Files:
    files: Files = {LONG: os.urandom(160 * MIB + 3)}
    for content in files.values():
        xet_store.upload(content)
    return files


@pytest.fixture
def long_hub(xet_hub: HubServer, long_model: Files) -> HubServer:
    xet_hub.add_repo("org/long", long_model)
    return xet_hub


class Origin:
    """Where content comes from: the CDN, and the store's xorbs."""

    def __init__(self, hub: HubServer, xet: XetFront) -> None:
        self._hub, self._xet = hub, xet

    def pace(self, bytes_per_second: float | None) -> None:
        self._hub.pace(bytes_per_second)
        self._xet.pace(bytes_per_second)

    def fail(self, fault: faults.Fault, path: str, skip: int = 0) -> None:
        """Lets neither of them give a file any more, after some answers."""
        self._xet.fault(fault, path=path, where="xorb", times=None, skip=skip)
        self._hub.fault(fault, path=path, where="cdn", times=None, skip=skip)

    def sent(self) -> dict[str, int]:
        cdn = sum(record.bytes_sent for record in self._hub.log if record.where == "cdn")
        return {"cdn": cdn, "xorb": self._xet.bytes_sent()}

    def sent_in_all(self) -> int:
        return sum(self.sent().values())


@pytest.fixture
def origin(long_hub: HubServer, xet: XetFront) -> Origin:
    return Origin(long_hub, xet)


def is_gone(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/stat").read_text("ascii")
    except OSError:
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


def words(protocol: str, target: Path, *more: str) -> Sequence[str | Path]:
    uri, connections = "hf://org/long", str(CONNECTIONS)
    return (uri, target, "--protocol", protocol, "--connections", connections, *more)


# --- right bytes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_each_brings_every_file(
    xet_hub: HubServer,
    xet: XetFront,
    xet_downloader: Downloader,
    target: Path,
    protocol: str,
) -> None:
    sizes = (MIB + 1, 2 * MIB - 1, 2 * MIB, 2 * MIB + 1, 4 * MIB, 9 * MIB + 123)
    large: Files = {f"deep/{size}.safetensors": os.urandom(size) for size in sizes}
    small: Files = {"empty.bin": b"", "tiny.bin": b"x", "config.json": b"{}"}
    xet_hub.add_repo("org/sizes", {**large, **small})
    await xet_downloader(target, "hf://org/sizes", protocols=(protocol,))
    assert_snapshot(target, {**large, **small})
    assert {event.protocol for event in xet_downloader.told(FileStarted)} == {protocol}
    sent = Origin(xet_hub, xet).sent()
    assert sent["xorb" if protocol == "XET" else "cdn"] >= total_size(large)
    assert sent["cdn" if protocol == "XET" else "xorb"] <= len(b"x")


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_each_leaves_the_same_behind(
    xet_hub: HubServer, xet_downloader: Downloader, tmp_path: Path, files: Files, protocol: str
) -> None:
    for name in ("HTTP", protocol):
        await xet_downloader(tmp_path / name, protocols=(name,))
    sums = [tmp_path / name / HIDDEN / "SHA256SUMS" for name in ("HTTP", protocol)]
    assert sums[0].read_bytes() == sums[1].read_bytes()


@pytest.mark.parametrize("first", PROTOCOLS)
async def test_wrong_bytes_of_one_are_right_by_the_next(
    xet_hub: HubServer,
    xet: XetFront,
    xet_downloader: Downloader,
    target: Path,
    files: Files,
    first: str,
) -> None:
    following = "HTTP" if first == "XET" else "XET"
    if first == "XET":
        xet.fault(xet.damage(NAME), path=NAME, times=None)
    else:
        damaged = faults.DamagedByte(5 * MIB + 1)
        xet_hub.fault(damaged, path=NAME, where="cdn", times=None)
    await xet_downloader(target, protocols=(first, following))
    assert_snapshot(target, files)


async def test_xet_needs_no_cdn(
    xet_hub: HubServer, xet_downloader: Downloader, target: Path, files: Files
) -> None:
    for name in files:
        xet_hub.fault(faults.Status(403), path=name, where="cdn", times=None)
    await xet_downloader(target, protocols=PROTOCOLS, include=["*.safetensors"])
    assert {event.protocol for event in xet_downloader.told(FileStarted)} == {"XET"}


# --- killed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), [*itertools.product(PROTOCOLS, PROTOCOLS)])
def test_each_goes_on_where_another_was_killed(
    origin: Origin,
    xet_command: Command,
    target: Path,
    long_model: Files,
    first: str,
    second: str,
) -> None:
    size = total_size(long_model)
    origin.pace(100e6)
    running = xet_command.start(*words(first, target))
    wait_until(lambda: origin.sent_in_all() >= size * 0.6 or running.ended, 60)
    running.kill()
    origin.pace(None)
    done = xet_command.run(*words(second, target))
    assert done.code == 0, done.said
    assert_snapshot(target, long_model)
    twice = origin.sent_in_all() - size
    print(f"fetched twice: {twice / MIB:.1f} MiB")
    assert twice <= PER_KILL[first]


@linux_only
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("protocol", ENGINES)
def test_no_engine_outlives_the_program(
    origin: Origin, xet_command: Command, target: Path, protocol: str, number: int
) -> None:
    origin.pace(50e6)
    running = xet_command.start(*words(protocol, target))
    wait_until(lambda: origin.sent_in_all() > 16 * MIB or running.ended, 60)
    engines = children(running)
    assert engines
    ended = running.end_by(number)
    assert ended.code == (-9 if number == signal.SIGKILL else 128 + number)
    assert ended.fair_seconds < 3
    assert "Traceback" not in ended.stderr
    wait_until(lambda: all(map(is_gone, engines)), 5)


@linux_only
@pytest.mark.parametrize("protocol", ENGINES)
def test_without_its_engine_a_file_is_completed(
    origin: Origin, xet_command: Command, target: Path, long_model: Files, protocol: str
) -> None:
    origin.pace(50e6)
    running = xet_command.start(*words(f"{protocol},HTTP", target))
    wait_until(lambda: origin.sent_in_all() > 64 * MIB or running.ended, 60)
    for engine in children(running):
        os.kill(engine, signal.SIGKILL)
    origin.pace(None)
    done = running.finish()
    assert done.code == 0, done.said
    assert "SIGKILL" in done.stderr
    assert_snapshot(target, long_model)
    assert origin.sent_in_all() - total_size(long_model) <= PER_KILL[protocol]


# --- when all fail --------------------------------------------------------------------------------


@pytest.mark.parametrize("clean", [False, True])
def test_when_all_fail_each_is_named_and_what_is_proven_stays(
    origin: Origin, xet_command: Command, target: Path, clean: bool
) -> None:
    # Some answers are right, so that something is there to go on with.
    origin.fail(FAILING, LONG, skip=2)
    done = xet_command.run(*words(",".join(PROTOCOLS), target, *["--clean"] * clean))
    assert done.code == 69
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    for protocol in PROTOCOLS:
        assert any(protocol in line for line in errors), done.said
    assert LONG in done.stderr
    assert "X-Amz" not in done.said
    partials = [name for name in names_below(target) if name.endswith(".partial")]
    journals = [name for name in names_below(target) if name.endswith(".journal")]
    assert len(partials) == len(journals) == (0 if clean else 1)
    assert not (target / LONG).exists()


def test_what_all_have_left_is_resumed(
    origin: Origin,
    xet_command: Command,
    xet: XetFront,
    long_hub: HubServer,
    target: Path,
    long_model: Files,
) -> None:
    origin.fail(FAILING, LONG, skip=2)
    assert xet_command.run(*words(",".join(PROTOCOLS), target)).code == 69
    kept = origin.sent_in_all()
    xet.clear_faults()
    long_hub.clear_faults()
    done = xet_command.run(*words("HTTP", target))
    assert done.code == 0, done.said
    assert_snapshot(target, long_model)
    assert origin.sent_in_all() - kept < total_size(long_model)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (faults.Status(403, error_code="GatedRepo"), 77),
        (faults.Status(401, message="Invalid credentials in Authorization header"), 77),
        (faults.Status(404, error_code="EntryNotFound"), 66),
    ],
    ids=["gated", "bad token", "gone"],
)
@pytest.mark.parametrize("protocol", PROTOCOLS[1:])
def test_what_no_protocol_can_cure_ends_the_run_at_once(
    long_hub: HubServer,
    origin: Origin,
    xet_command: Command,
    target: Path,
    fault: faults.Fault,
    code: int,
    protocol: str,
) -> None:
    long_hub.fault(fault, path=LONG, where="hub", times=None)
    done = xet_command.run(*words(f"{protocol},XET", target), HF_TOKEN=TOKEN)
    assert done.code == code, done.said
    assert "takes over" not in done.stderr
    assert origin.sent_in_all() == 0


def test_the_digests_of_a_run_that_needed_all_three(
    origin: Origin,
    xet: XetFront,
    long_hub: HubServer,
    xet_command: Command,
    target: Path,
    long_model: Files,
) -> None:
    """The store fails half-way, then a link is refused once: what is proven goes on."""
    xet.fault(FAILING, path=LONG, where="xorb", times=None, skip=4)
    long_hub.fault(faults.Status(403), path=LONG, where="cdn", times=1, skip=3)
    done = xet_command.run(*words(",".join(PROTOCOLS), target))
    assert done.code == 0, done.said
    assert "XET gives up, HF_TRANSFER takes over" in done.stderr
    assert digest(target / LONG) == digest(long_model[LONG])
