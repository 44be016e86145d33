"""A small stand-in for the Hugging Face hub: the endpoints a download uses, and the ways they fail."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
NOBODY = "http://127.0.0.1:9"
"""An address without a hub: the discard port, on which nothing listens."""

REVOKED_TOKEN = "hf_revoked"
"""A token that the hub knows and accepts no more."""

_LARGE = (".gguf", ".safetensors", ".bin", ".pth")
"""Files that the hub keeps outside of git, on another host."""


@dataclass
class StandInRepository:
    """One repository at one commit.

    Attributes:
        token: needed to see it at all, as with a private repository.
        gated_token: needed to download, while everybody may list, as with a gated repository.
        forbidding: lists its files and then refuses them, as to a token without the right to read.
        lost: files that are listed and then not found.
    """

    files: dict[str, bytes]
    token: str | None = None
    gated_token: str | None = None
    forbidding: bool = False
    lost: frozenset[str] = frozenset()
    commit: str = COMMIT
    revisions: frozenset[str] = frozenset({"main", "refs/pr/1"})


@dataclass
class StandInHub:
    """What the server knows, and what a test wants to go wrong.

    Attributes:
        url: the hub's address.
        content_url: where it sends downloads of large files: another host, which must not see the token.
        cut_after: downloads end, with their connection, after this many bytes.
        num_cuts: how many of them do.
        corrupt: files that arrive with their last byte changed.
        unavailable: every request is answered with status 503.
        requests: (method, quoted path) of every request, in order.
        ranges: the Range header of every download of a large file.
        leaked_tokens: tokens that came with one.
    """

    repositories: dict[str, StandInRepository]
    url: str = ""
    content_url: str = ""
    cut_after: int | None = None
    num_cuts: int = 1
    corrupt: frozenset[str] = frozenset()
    unavailable: bool = False
    requests: list[tuple[str, str]] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    leaked_tokens: list[str] = field(default_factory=list)

    def downloads(self) -> list[str]:
        """Names of the files whose content was sent, in order."""
        gets = [path.split("/") for method, path in self.requests if method == "GET" and not path.startswith("/api/")]
        names = ["/".join(path[4:] if path[1] == "cdn" else path[5:]) for path in gets]
        is_content = [path[1] == "cdn" or not name.endswith(_LARGE) for path, name in zip(gets, names, strict=True)]
        return [unquote(name) for name, counts in zip(names, is_content, strict=True) if counts]


@contextmanager
def serve_hub(repositories: dict[str, StandInRepository]) -> Iterator[StandInHub]:
    """Serve the repositories on a local port until the block ends."""
    hub = StandInHub(repositories)
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    hub.content_url = f"http://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: StandInHub

    def do_GET(self) -> None:
        self._route()

    def do_HEAD(self) -> None:
        self._route()

    def log_message(self, *_: Any) -> None:
        pass

    def _route(self) -> None:
        path = urlsplit(self.path).path
        self.hub.requests.append((self.command, path))
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if self.hub.unavailable:
            self._fail(503)
        elif parts[0] == "cdn":
            self._large_file("/".join(parts[1:3]), "/".join(parts[3:]))
        elif parts[:2] == ["api", "models"]:
            self._info("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main")
        elif len(parts) > 4 and parts[2] == "resolve":
            self._resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self._fail(404)

    def _find(self, repo_id: str, revision: str) -> StandInRepository | None:
        repository = self.hub.repositories.get(repo_id)
        if self._token() == REVOKED_TOKEN:
            self._fail(401, message="Invalid credentials in Authorization header")
        elif repository is None or (repository.token is not None and self._token() != repository.token):
            self._fail(404 if self._token() else 401, "RepoNotFound")
        elif revision not in {repository.commit, *repository.revisions}:
            self._fail(404, "RevisionNotFound")
        else:
            return repository
        return None

    def _info(self, repo_id: str, revision: str) -> None:
        repository = self._find(repo_id, revision)
        if repository is None:
            return
        siblings = [_sibling(name, content) for name, content in repository.files.items()]
        info = {"id": repo_id, "sha": repository.commit, "siblings": siblings, "tags": [], "downloads": 0, "likes": 0}
        self._send(200, {"Content-Type": "application/json"}, json.dumps(info).encode())

    def _resolve(self, repo_id: str, revision: str, name: str) -> None:
        repository = self._find(repo_id, revision)
        if repository is None:
            return
        if repository.gated_token is not None and self._token() != repository.gated_token:
            self._fail(403 if self._token() else 401, "GatedRepo")
        elif repository.forbidding:
            self._fail(403, message="the token has no right to read")
        elif name in repository.lost:
            self._fail(404, "EntryNotFound")
        elif name.endswith(_LARGE):
            content = repository.files[name]
            linked = {"X-Linked-Etag": f'"{_sha256(content)}"', "X-Linked-Size": str(len(content))}
            location = f"{self.hub.content_url}/cdn/{repo_id}/{quote(name)}"
            self._send(302, {"X-Repo-Commit": repository.commit, "Location": location, **linked}, b"")
        else:
            etag = {"X-Repo-Commit": repository.commit, "ETag": f'"{_git_hash(repository.files[name])}"'}
            self._send(200, etag, self._damaged(name, repository.files[name]))

    def _large_file(self, repo_id: str, name: str) -> None:
        content = self._damaged(name, self.hub.repositories[repo_id].files[name])
        asked = self.headers.get("Range")
        self.hub.ranges.append(asked)
        if token := self._token():
            self.hub.leaked_tokens.append(token)
        first, _, last = (asked or "bytes=0-").removeprefix("bytes=").partition("-")
        sent = content[int(first) : int(last) + 1 if last else None]
        end = int(first) + len(sent) - 1
        headers = {"Content-Range": f"bytes {first}-{end}/{len(content)}"} if asked else {}
        self._send(206 if asked else 200, headers, sent)

    def _damaged(self, name: str, content: bytes) -> bytes:
        return content[:-1] + bytes([content[-1] ^ 1]) if name in self.hub.corrupt else content

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "GET":
            return
        if self.path.startswith("/cdn/") and self.hub.cut_after is not None and self.hub.num_cuts > 0:
            self.hub.num_cuts -= 1
            body = body[: self.hub.cut_after]
        with contextlib.suppress(ConnectionError):  # a client may have read enough
            self.wfile.write(body)
        self.close_connection = True

    def _fail(self, status: int, code: str | None = None, message: str | None = None) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message}
        self._send(status, {name: value for name, value in headers.items() if value is not None}, b"")

    def _token(self) -> str | None:
        return self.headers.get("Authorization", "").removeprefix("Bearer ") or None


def _sibling(name: str, content: bytes) -> dict[str, Any]:
    sibling: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": _git_hash(content)}
    if name.endswith(_LARGE):
        sibling["lfs"] = {"sha256": _sha256(content), "size": len(content), "pointerSize": 135}
    return sibling


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
