"""What a Hub says about the Xet store beside it: its address and tokens for it."""

from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from aim_downloader.demo.reply import Reply, json_reply


@dataclass(frozen=True)
class XetToken:
    """Access to a Xet store until `expires`, in seconds since 1970."""

    text: str
    expires: int


class XetStore(Protocol):
    """A Xet store, as a Hub knows it."""

    @property
    def endpoint(self) -> str: ...

    def grant(self) -> XetToken: ...


def token_reply(store: XetStore) -> Reply:
    """Some clients read the JSON, others the headers."""
    token = store.grant()
    said = {"accessToken": token.text, "exp": token.expires, "casUrl": store.endpoint}
    headers = {
        "X-Xet-Access-Token": token.text,
        "X-Xet-Token-Expiration": str(token.expires),
        "X-Xet-Cas-Url": store.endpoint,
    }
    return json_reply(said, headers)


def file_headers(
    store: XetStore, request: web.Request, repo_id: str, commit_id: str, xet_hash: str
) -> dict[str, str]:
    """How a `resolve` answer names the way to a file by Xet."""
    hub = f"{request.scheme}://{request.host}"
    token = f"{hub}/api/models/{repo_id}/xet-read-token/{commit_id}"
    file = f"{store.endpoint}/v1/reconstructions/{xet_hash}"
    link = f'<{token}>; rel="xet-auth", <{file}>; rel="xet-reconstruction-info"'
    return {"X-Xet-Hash": xet_hash, "Link": link}
