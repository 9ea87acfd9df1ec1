"""The Hub: its API and its `resolve` addresses, as an aiohttp application over a catalogue."""

from collections.abc import Awaitable, Callable
from urllib.parse import quote

from aiohttp import web
from yarl import URL

from aim_downloader.demo import listing
from aim_downloader.demo.cdn import Signer
from aim_downloader.demo.reply import (
    RefusalError,
    Reply,
    Subject,
    Where,
    content_reply,
    error_reply,
    json_reply,
    redirect_reply,
)
from aim_downloader.demo.repository import Catalogue, Commit, Entry, Repository
from aim_downloader.demo.sender import Sender
from aim_downloader.demo.xet import file_headers, token_reply

REPO = "{repo:[^/]+(?:/[^/]+)?}"
API = f"/api/models/{REPO}"

Answer = Callable[[web.Request], Awaitable[Reply]]


class Hub:
    """Answers for every repository of a catalogue, and sends large files to the CDN."""

    def __init__(
        self,
        catalogue: Catalogue,
        signer: Signer,
        sender: Sender,
        *,
        cdn_base: str,
        page_size: int = 1000,
    ) -> None:
        self._catalogue = catalogue
        self._signer = signer
        self._sender = sender
        self._cdn_base = cdn_base
        self._page_size = page_size

    def application(self) -> web.Application:
        app = web.Application()
        # The narrow patterns first: a bare name followed by `/refs` also looks like `owner/name`.
        self._route(app, "api", "/api/whoami-v2", self._whoami)
        self._route(app, "api", f"{API}/refs", self._refs)
        self._route(app, "api", f"{API}/commits/{{rev}}", self._commits)
        self._route(app, "api", f"{API}/tree/{{rev}}", self._tree)
        self._route(app, "api", f"{API}/tree/{{rev}}/{{folder:.+}}", self._tree)
        self._route(app, "api", f"{API}/paths-info/{{rev}}", self._paths_info, method="POST")
        self._route(app, "api", f"{API}/revision/{{rev}}", self._model_info)
        self._route(app, "api", f"{API}/xet-read-token/{{rev}}", self._xet_token)
        self._route(app, "api", API, self._model_info)
        cached = f"/api/resolve-cache/models/{REPO}/{{rev:[0-9a-f]{{40}}}}/{{file:.+}}"
        self._route(app, "hub", cached, self._resolve_cache)
        self._route(app, "api", "/api/{rest:.*}", self._not_found)
        self._route(app, "hub", f"/{REPO}/resolve/{{rev}}/{{file:.+}}", self._resolve)
        self._route(app, "hub", "/{rest:.*}", self._not_found)
        return app

    def _route(
        self, app: web.Application, where: Where, path: str, answer: Answer, method: str = "GET"
    ) -> None:
        async def handle(request: web.Request) -> web.StreamResponse:
            known = request.match_info
            subject = Subject(where, known.get("repo", ""), known.get("file", ""))
            try:
                self._check_token(request)
                reply = await answer(request)
            except RefusalError as refusal:
                reply = refusal.reply
            return await self._sender.send(request, subject, reply)

        add = app.router.add_get if method == "GET" else app.router.add_post
        add(path, handle)

    async def _not_found(self, _: web.Request) -> Reply:
        return error_reply(404, "Sorry, we can't find the page you are looking for.")

    async def _whoami(self, request: web.Request) -> Reply:
        if _token(request) is None:
            raise RefusalError(error_reply(401, "Invalid username or password."))
        token = {"displayName": "demo", "role": "read"}
        account = {"type": "user", "name": "demo", "orgs": []}
        return json_reply(account | {"auth": {"accessToken": token}})

    async def _model_info(self, request: web.Request) -> Reply:
        repository, commit = self._find(request)
        return json_reply(listing.model(repository, commit, blobs=_flag(request, "blobs")))

    async def _refs(self, request: web.Request) -> Reply:
        return json_reply(listing.refs(self._repository(request)))

    async def _commits(self, request: web.Request) -> Reply:
        _, commit = self._find(request)
        return json_reply([listing.commit(each) for each in commit.history()])

    async def _tree(self, request: web.Request) -> Reply:
        _, commit = self._find(request)
        folder = request.match_info.get("folder", "").strip("/")
        if folder and not commit.holds_folder(folder):
            raise RefusalError(_no_entry(commit))
        items = listing.tree(
            commit, folder, recursive=_flag(request, "recursive"), expand=_flag(request, "expand")
        )
        asked = _number(request, "limit") or self._page_size
        start, stop = listing.page(len(items), _number(request, "cursor"), asked, self._page_size)
        more = {"Link": _next_page(request, stop)} if stop < len(items) else {}
        return json_reply(items[start:stop], more)

    async def _paths_info(self, request: web.Request) -> Reply:
        _, commit = self._find(request)
        form = await request.post()
        paths = [path for path in form.getall("paths", []) if isinstance(path, str)]
        expand = str(form.get("expand", "")).lower() in ("true", "1")
        return json_reply(listing.paths_info(commit, paths, expand=expand))

    async def _resolve(self, request: web.Request) -> Reply:
        repository, commit, entry = self._entry(request)
        pinned = {"X-Repo-Commit": commit.id}
        if entry.sha256 is not None:
            pinned |= self._xet_headers(request, repository, commit, entry)
            return self._resolve_large(repository, entry, entry.sha256, pinned)
        location = f"/api/resolve-cache/models/{repository.id}/{commit.id}/{quote(entry.path)}"
        return redirect_reply(307, location, pinned)

    def _resolve_large(
        self, repository: Repository, entry: Entry, sha256: str, pinned: dict[str, str]
    ) -> Reply:
        linked = {
            "ETag": f'"{entry.oid}"',
            "X-Linked-ETag": f'"{sha256}"',
            "X-Linked-Size": str(entry.size),
            "Accept-Ranges": "bytes",
        }
        location = self._signer.sign(self._cdn_base, repository.id, entry.path, sha256)
        return redirect_reply(302, location, pinned | linked)

    def _xet_headers(
        self, request: web.Request, repository: Repository, commit: Commit, entry: Entry
    ) -> dict[str, str]:
        store = self._catalogue.xet
        if store is None or entry.xet_hash is None:
            return {}
        return file_headers(store, request, repository.id, commit.id, entry.xet_hash)

    async def _resolve_cache(self, request: web.Request) -> Reply:
        _, commit, entry = self._entry(request)
        return content_reply(
            request,
            entry.content,
            f'"{entry.oid}"',
            {"X-Repo-Commit": commit.id, "Content-Type": "text/plain; charset=utf-8"},
        )

    async def _xet_token(self, request: web.Request) -> Reply:
        self._readable(request)
        store = self._catalogue.xet
        return token_reply(store) if store else await self._not_found(request)

    def _check_token(self, request: web.Request) -> None:
        token = _token(request)
        if token is not None and not self._catalogue.knows(token):
            message = "Invalid credentials in Authorization header"
            raise RefusalError(error_reply(401, message))

    def _repository(self, request: web.Request) -> Repository:
        repo_id = request.match_info["repo"]
        if new_id := self._catalogue.renamed.get(repo_id):
            raise RefusalError(redirect_reply(307, request.path_qs.replace(repo_id, new_id, 1)))
        repository = self._catalogue.repositories.get(repo_id)
        if repository is None or (repository.private and not self._may_read(request, repository)):
            status = 404 if _token(request) else 401
            message = "Repository not found" if status == 404 else "Invalid username or password."
            raise RefusalError(error_reply(status, message, "RepoNotFound"))
        return repository

    def _find(self, request: web.Request) -> tuple[Repository, Commit]:
        repository = self._repository(request)
        revision = request.match_info.get("rev", "main")
        commit = repository.find(revision)
        if commit is None:
            message = f"Invalid rev id: {revision}"
            raise RefusalError(error_reply(404, message, "RevisionNotFound"))
        return repository, commit

    def _readable(self, request: web.Request) -> tuple[Repository, Commit]:
        repository, commit = self._find(request)
        if repository.gated and not self._may_read(request, repository):
            raise RefusalError(_gated(repository, commit, 403 if _token(request) else 401))
        return repository, commit

    def _entry(self, request: web.Request) -> tuple[Repository, Commit, Entry]:
        repository, commit = self._readable(request)
        entry = commit.entries.get(request.match_info["file"])
        if entry is None:
            raise RefusalError(_no_entry(commit))
        return repository, commit, entry

    def _may_read(self, request: web.Request, repository: Repository) -> bool:
        return self._catalogue.may_read(_token(request), repository.id)


def _token(request: web.Request) -> str | None:
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


def _flag(request: web.Request, name: str) -> bool:
    return request.query.get(name, "").lower() in ("true", "1")


def _number(request: web.Request, name: str) -> int:
    text = request.query.get(name, "")
    return int(text) if text.isdigit() else 0


def _next_page(request: web.Request, cursor: int) -> str:
    here = URL(f"{request.scheme}://{request.host}{request.path_qs}", encoded=True)
    return f'<{here.update_query(cursor=str(cursor))}>; rel="next"'


def _no_entry(commit: Commit) -> Reply:
    return error_reply(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": commit.id})


def _gated(repository: Repository, commit: Commit, status: int) -> Reply:
    message = f"Access to model {repository.id} is restricted."
    return error_reply(status, message, "GatedRepo", {"X-Repo-Commit": commit.id})
