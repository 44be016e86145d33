"""A small stand-in for the Hugging Face hub: the endpoints a download uses, and the ways they fail."""

from __future__ import annotations

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


@dataclass
class StandInRepository:
    """One repository at one commit.

    Attributes:
        token: needed to see it at all, as with a private repository.
        gated_token: needed to download, while everybody may list, as with a gated repository.
    """

    files: dict[str, bytes]
    token: str | None = None
    gated_token: str | None = None


@dataclass
class StandInHub:
    """What the server knows, and what a test wants to go wrong.

    Attributes:
        url: the hub's address.
        content_url: where it sends downloads: another host, which must not see the token.
        cut_after: the next download ends, with its connection, after this many bytes.
        corrupt: downloads arrive with their last byte changed.
        unavailable: every request is answered with status 503.
        requests: (method, path) of every request, in order.
        ranges: the Range header of every download.
        leaked_tokens: tokens that came with a download.
    """

    repositories: dict[str, StandInRepository]
    url: str = ""
    content_url: str = ""
    cut_after: int | None = None
    corrupt: bool = False
    unavailable: bool = False
    requests: list[tuple[str, str]] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    leaked_tokens: list[str] = field(default_factory=list)

    def downloads(self) -> list[str]:
        """Paths of the files whose content was asked for."""
        return [path for method, path in self.requests if method == "GET" and path.startswith("/cdn/")]


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
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path))
        parts = path.strip("/").split("/")
        if self.hub.unavailable:
            self._fail(503)
        elif parts[0] == "cdn":
            self._content("/".join(parts[1:3]), "/".join(parts[3:]))
        elif parts[:2] == ["api", "models"]:
            self._info("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main")
        else:
            self._resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))

    def _find(self, repo_id: str, revision: str) -> StandInRepository | None:
        repository = self.hub.repositories.get(repo_id)
        if repository is None or (repository.token is not None and self._token() != repository.token):
            self._fail(404 if self._token() else 401, "RepoNotFound")
        elif revision not in {"main", COMMIT}:
            self._fail(404, "RevisionNotFound")
        else:
            return repository
        return None

    def _info(self, repo_id: str, revision: str) -> None:
        repository = self._find(repo_id, revision)
        if repository is None:
            return
        siblings = [_sibling(name, content) for name, content in repository.files.items()]
        body = json.dumps({"id": repo_id, "sha": COMMIT, "siblings": siblings, "tags": [], "downloads": 0, "likes": 0})
        self._send(200, {"Content-Type": "application/json"}, body.encode())

    def _resolve(self, repo_id: str, revision: str, name: str) -> None:
        repository = self._find(repo_id, revision)
        if repository is None:
            return
        if repository.gated_token is not None and self._token() != repository.gated_token:
            self._fail(403 if self._token() else 401, "GatedRepo")
            return
        content = repository.files[name]
        headers = {
            "X-Repo-Commit": COMMIT,
            "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Linked-Size": str(len(content)),
            "Location": f"{self.hub.content_url}/cdn/{repo_id}/{quote(name)}",
        }
        self._send(302, headers, b"")

    def _content(self, repo_id: str, name: str) -> None:
        content = self.hub.repositories[repo_id].files[name]
        if self.hub.corrupt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        asked = self.headers.get("Range")
        self.hub.ranges.append(asked)
        if token := self._token():
            self.hub.leaked_tokens.append(token)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if asked else {}
        self._send(206 if asked else 200, headers, content[start:])

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "GET":
            return
        is_content = self.path.startswith("/cdn/")
        cut_after, self.hub.cut_after = (self.hub.cut_after, None) if is_content else (None, self.hub.cut_after)
        self.wfile.write(body[:cut_after])
        self.close_connection = True

    def _fail(self, status: int, code: str | None = None) -> None:
        headers = {"X-Error-Code": code} if code else {}
        self._send(status, headers, b"")

    def _token(self) -> str | None:
        return self.headers.get("Authorization", "").removeprefix("Bearer ") or None


def _sibling(name: str, content: bytes) -> dict[str, Any]:
    sha256 = hashlib.sha256(content).hexdigest()
    lfs = {"sha256": sha256, "size": len(content), "pointerSize": 135}
    return {"rfilename": name, "size": len(content), "blobId": sha256[:40], "lfs": lfs}
