"""What a source is."""

from __future__ import annotations

from typing import Protocol

from aim_downloader.snapshot import ModelURI, Snapshot


class Source(Protocol):
    """Where models come from."""

    scheme: str

    async def resolve(self, uri: ModelURI) -> Snapshot:
        """Pin the revision and list its files.

        Raises:
            SourceError: the snapshot cannot be listed.
        """
        ...
