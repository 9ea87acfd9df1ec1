"""Our protocols and the peers on the same repositories: large, medium, many small files."""

from collections.abc import Mapping, Sequence

from bench.board import TWO_CORES, Board, size
from bench.contenders import Aria2, Contender, Curl, HfDownload, HfTransfer, Ours
from bench.grounds import Grounds, able
from bench.paired import Runs, fastest, wall_and_check
from bench.result import Outcome
from tests.kernel_memory import why_no_cache

FEW = 3
LARGE = "Large"

XET, HF_TRANSFER, HTTP = Ours("XET"), Ours("HF_TRANSFER"), Ours("HTTP")
HF_XET, HF_HTTP = HfDownload("Xet"), HfDownload("HTTP")
OVER_HTTP = (HfTransfer(), Curl(), Aria2())
EVERYONE: Sequence[Contender] = (XET, HF_TRANSFER, HTTP, HF_XET, HF_HTTP, *OVER_HTTP)

# Whom each number is about, so that it can be had without all the others.
_ABOUT: Mapping[str, Sequence[Contender]] = {
    "P1": (XET, HF_XET),
    "P2": (XET, HF_XET),
    "P3": (HTTP, *OVER_HTTP),
    "P3b": (HTTP, *OVER_HTTP),
    "P5": (HF_TRANSFER, OVER_HTTP[0]),
    "P10": (XET, HF_TRANSFER, HTTP),
    "large": EVERYONE,
}


def large(grounds: Grounds) -> Outcome:
    """P1, P2, P3, P3b, P5 and the memory of P10, all from the same rounds."""
    about = [one for id_ in grounds.wanted for one in _ABOUT.get(id_, ())]
    contenders, left_out = able([one for one in EVERYONE if one in about])
    runs = grounds.contest("large", grounds.weights, contenders, xet=True, check=True)
    what = f"{size(grounds.sizes.weights)} in 4 files"
    board = Board("large", runs, f"{LARGE}: {what}")
    _over_xet(board, what)
    _over_http(board, what, runs, grounds.checksum.name)
    _by_hf_transfer(board, what)
    for one, goal in ((HTTP, 160), (XET, None), (HF_TRANSFER, None)):
        if board.has(one.name):
            board.peak("P10", f"peak memory of {one.name}: {what}", one.name, goal)
    return _told(board, contenders, left_out)


def medium(grounds: Grounds) -> Outcome:
    """No number, only who takes what."""
    contenders, left_out = able(EVERYONE)
    runs = min(grounds.runs, FEW)
    found = grounds.contest("medium", grounds.shards, contenders, runs=runs, xet=True, check=True)
    what = f"{len(grounds.shards.files)} files of {size(grounds.sizes.shard)}"
    return _told(Board("medium", found, f"Medium: {what}"), contenders, left_out)


def small(grounds: Grounds) -> Outcome:
    """P6: git files, which the Hub sends itself: no protocol is asked for them."""
    ours, hf = Ours(), HfDownload()
    contenders, left_out = able([ours, hf, *OVER_HTTP])
    runs = min(grounds.runs, FEW)
    found = grounds.contest("small", grounds.small, contenders, runs=runs)
    what = f"{grounds.sizes.small_files} files of 8 KiB"
    board = Board("small", found, f"Small: {what}, which are in git and come from the Hub")
    if board.has(hf.name):
        board.duel("P6", f"{what}, verified", ours.name, hf.name, 0.20)
    return _told(board, contenders, left_out)


def disk(grounds: Grounds) -> Outcome:
    """The large repository once more, to a disk."""
    if reason := why_no_cache(grounds.disk):
        return Outcome([], (), [f"to a disk: {reason}"])
    contenders, left_out = able(EVERYONE)
    runs = min(grounds.runs, FEW - 1)
    found = grounds.contest("disk", grounds.weights, contenders, runs=runs, xet=True, disk=True)
    what = f"{size(grounds.sizes.weights)} in 4 files"
    return _told(Board("disk", found, f"{LARGE}, to a disk: {what}"), contenders, left_out)


def _over_xet(board: Board, what: str) -> None:
    if not board.has(XET.name, HF_XET.name):
        return
    board.duel(
        "P1",
        f"{what}, over Xet, verified, against `hf download` followed by `hf cache verify`",
        XET.name,
        HF_XET.name,
        0.70,
        against=wall_and_check,
        then=", then verify:",
    )
    goal = 1.25 if TWO_CORES else 1.05
    what = "the same, against `hf download` alone, which does not verify"
    board.duel("P2", what, XET.name, HF_XET.name, goal)


def _over_http(board: Board, what: str, runs: Runs, checksum: str) -> None:
    peers = {one.name: runs[one.name] for one in OVER_HTTP if board.has(HTTP.name, one.name)}
    if not peers:
        return
    best = fastest(peers)
    board.duel(
        "P3",
        f"{what}, over HTTP, verified, against the fastest peer, which does not verify",
        HTTP.name,
        best,
        1.30 if TWO_CORES else 1.05,
    )
    board.duel(
        "P3b",
        f"the same, against that peer followed by {checksum}",
        HTTP.name,
        best,
        0.70,
        against=wall_and_check,
        then=", then sha256:",
    )


def _by_hf_transfer(board: Board, what: str) -> None:
    peer = OVER_HTTP[0].name
    if board.has(HF_TRANSFER.name, peer):
        case = f"{what}, by HF_TRANSFER, verified, against hf_transfer alone, which does not verify"
        board.duel("P5", case, HF_TRANSFER.name, peer, 1.40 if TWO_CORES else 1.10)


def _told(board: Board, contenders: Sequence[Contender], left_out: Sequence[str]) -> Outcome:
    return board.outcome(left_out, [one.name for one in contenders if one.verifies])
