"""The program around hf_xet, with a stand-in for hf_xet that hands over odd pieces."""

import queue
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aim_downloader.engines.xet import begin

PIECES = [b"", b"abc", b"", b"defgh", b""]


class OddXet:
    """A store that streams ``PIECES``, in the words of hf_xet."""

    def XetConfig(self) -> Any:  # noqa: N802
        return SimpleNamespace(with_config=lambda settings: settings)

    def XetSession(self, _: Any) -> Any:  # noqa: N802
        group = SimpleNamespace(download_stream=lambda *_, **__: iter(PIECES), finish=lambda: None)
        return SimpleNamespace(new_download_stream_group=lambda **_: group)

    def XetFileInfo(self, *_: Any) -> None:  # noqa: N802
        pass


@pytest.mark.parametrize("pace", [0, 2])
@pytest.mark.parametrize(
    ("stop", "ends"),
    [(10, {"done": True}), (8, {"error": "more bytes came than were asked for"})],
    ids=["as asked for", "more"],
)
def test_pieces_go_where_they_belong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pace: int, stop: int, ends: dict[str, Any]
) -> None:
    monkeypatch.setitem(sys.modules, "hf_xet", OddXet())
    path = tmp_path / "partial"
    path.write_bytes(b"..........")
    told: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    handle = begin(lambda **words: told.put(words))
    store: dict[str, Any] = {"store": {}, "settings": {}}
    handle(
        {**store, "hash": "", "size": 10, "path": str(path), "start": 2, "stop": stop, "pace": pace}
    )
    while not (words := told.get(timeout=10)).keys() & {"done", "error"}:
        if "want" in words:
            handle({"may": words["want"]})
    assert words.items() >= ends.items()
    written = path.read_bytes()
    assert written == b"..abcdefgh" if stop == 10 else written[stop:] == b".."
