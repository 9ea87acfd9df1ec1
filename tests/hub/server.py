"""`HubServer`: Hub and CDN in a thread of their own, with scripted faults and a request log."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from aim_downloader.demo.cdn import Signer
from aim_downloader.demo.content import Content
from aim_downloader.demo.repository import Catalogue, Gate, Repository, files_of, lfs_by_suffix
from aim_downloader.demo.serve import Doors, Served, serve
from aim_downloader.demo.xet import XetStore
from tests.hub.scripted import SEND_BUFFER, ScriptedServer


class XetBeside(XetStore, Protocol):
    """A Xet store that takes the large files of a Hub."""

    def attach(self, catalogue: Catalogue) -> None:
        """Learns whose files it has."""

    def take(self, contents: Iterable[Content]) -> None:
        """Takes many contents at once, which is quicker than one by one."""

    def hash_of(self, content: Content) -> str:
        """The Xet hash of a content, which is taken if it was not yet."""


class HubServer(ScriptedServer):
    """A Hub for tests: `with HubServer() as hub:`. All methods may be called from any thread.

    The parts that faults are for: "api", "hub" (resolve and git files), "cdn". With `xet`, which
    must be running, the LFS files of all repositories are in that store, too. `hosts` are those of
    the Hub and of its CDN, where they are not this machine's own.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        hosts: tuple[str, str] | None = None,
        cdn_base: str | None = None,
        page_size: int = 1000,
        xet: XetBeside | None = None,
    ) -> None:
        super().__init__(large="cdn")
        self._doors = Doors(hosts[0], port, hosts[1:]) if hosts else Doors(port=port)
        self._cdn_base = cdn_base
        self._page_size = page_size
        self._xet = xet
        self._catalogue = Catalogue(tokens={}, xet=xet)
        self._signer = Signer()
        self._served: Served | None = None
        if xet is not None:
            xet.attach(self._catalogue)

    # -- where it is ---------------------------------------------------------------------------

    @property
    def endpoint(self) -> str:
        """What clients take as HF_ENDPOINT."""
        return self._address().endpoint

    @property
    def cdn(self) -> str:
        """The address that signed URLs begin with."""
        return self._address().cdn

    @property
    def cdn_host(self) -> str:
        """The host of the CDN, without a port."""
        return urlsplit(self.cdn).hostname or ""

    # -- what it holds -------------------------------------------------------------------------

    def add_repo(
        self,
        repo_id: str,
        files: Mapping[str, bytes | Path],
        *,
        lfs: Callable[[str], bool] = lfs_by_suffix,
        private: bool = False,
        gated: Gate = False,
        xet: bool = True,
    ) -> Repository:
        """A new repository with one commit on `main`; `commit` and `tag` are methods of it.

        Without `xet` its files are in no Xet store.
        """
        repository = Repository(repo_id, private=private, gated=gated, is_lfs=lfs)
        if self._xet is not None and xet:
            repository.xet_hash = self._xet.hash_of
            self._xet.take(Content(data) for path, data in files.items() if lfs(path))
        repository.commit(files)
        return self._catalogue.add(repository)

    def add_folder(self, repo_id: str, folder: Path) -> Repository:
        """A new repository with the files of a folder."""
        return self.add_repo(repo_id, files_of(folder))

    def repo(self, repo_id: str) -> Repository:
        return self._catalogue.repositories[repo_id]

    def rename_repo(self, old_id: str, new_id: str) -> None:
        """Moves a repository; its former name answers 307."""
        repository = self._catalogue.repositories.pop(old_id)
        repository.id = new_id
        self._catalogue.add(repository)
        self._catalogue.renamed[old_id] = new_id

    def add_token(self, token: str, *, reads: tuple[str, ...] = ()) -> None:
        """A valid token, and the private and gated repositories that it may read."""
        tokens = self._catalogue.tokens or {}
        self._catalogue.tokens = {**tokens, token: frozenset(reads)}

    def remove_token(self, token: str) -> None:
        tokens = self._catalogue.tokens or {}
        self._catalogue.tokens = {known: tokens[known] for known in tokens if known != token}

    def url_lifetime(self, seconds: float) -> None:
        """How long signed URLs made from now on are valid."""
        self._signer.lifetime = seconds

    # -- its life ------------------------------------------------------------------------------

    async def _open(self, stack: AsyncExitStack) -> None:
        self._served = await stack.enter_async_context(
            serve(
                self._catalogue,
                self._signer,
                self._sender(),
                doors=self._doors,
                cdn_base=self._cdn_base,
                page_size=self._page_size,
                cdn_send_buffer=SEND_BUFFER,
            )
        )

    def _address(self) -> Served:
        if self._served is None:
            raise RuntimeError("the Hub is not running")
        return self._served
