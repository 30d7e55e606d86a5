"""A small stand-in of the Hub's API: as much of it as the Hub's own client needs to look, create, upload and fetch."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_StandInTokenOfTheTests"
LARGE = (".safetensors", ".onnx", ".npz")  # what the Hub keeps outside of git


@dataclass
class Hub:
    """Repositories by name: visibility and files; what was asked; and what is refused."""

    url: str = ""
    repos: dict[str, dict[str, Any]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    cards: list[str] = field(default_factory=list)
    owner: str = "me"

    def files(self, repo: str) -> dict[str, bytes]:
        found: dict[str, bytes] = self.repos[repo]["files"]
        return found

    def add(self, repo: str, *, private: bool = True, **files: bytes) -> None:
        self.repos[repo] = {"private": private, "files": {".gitattributes": b"*.onnx lfs\n", **files}}

    def commit(self, repo: str) -> str:
        told = repr(sorted((name, hashlib.sha1(data).hexdigest()) for name, data in self.files(repo).items()))
        return hashlib.sha1(told.encode()).hexdigest()


@contextmanager
def running() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def answer(self, status: int, body: Any = None, **headers: str) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def handle_one(self) -> None:
            body = self.body()
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            if not path.startswith("/lfs/") and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                # what the Hub says of a repository to a token that it does not know
                self.answer(401, {"error": f"Invalid username or password. ({self.headers.get('Authorization')})"})
            elif path == "/api/whoami-v2":
                self.answer(200, {"type": "user", "name": hub.owner, "orgs": []})
            elif path == "/api/validate-yaml":
                hub.cards.append(json.loads(body)["content"])
                self.answer(200, {"errors": [], "warnings": []})
            elif path == "/api/repos/create":
                create(self, json.loads(body))
            elif path.startswith("/lfs/"):
                hub.blobs[path.removeprefix("/lfs/")] = body
                self.answer(200)
            elif path.endswith(".git/info/lfs/objects/batch"):
                objects = [
                    {**each, "actions": {"upload": {"href": f"{hub.url}/lfs/{each['oid']}"}}}
                    for each in json.loads(body)["objects"]
                ]
                self.answer(200, {"transfer": "basic", "objects": objects})
            elif path.startswith("/api/models/"):
                owner, name, *rest = path.removeprefix("/api/models/").split("/")
                of_repo(self, f"{owner}/{name}", rest, body)
            else:
                owner, name, _, _, *file = path.strip("/").split("/")
                serve(self, f"{owner}/{name}", "/".join(file))

        do_GET = do_HEAD = do_POST = do_PUT = handle_one  # noqa: N815

    def create(to: Handler, told: dict[str, Any]) -> None:
        repo = f"{told.get('organization') or hub.owner}/{told['name']}"
        if told.get("organization") not in (None, hub.owner):
            to.answer(403, {"error": "You don't have the rights to create a model under this namespace"})
        elif repo in hub.repos:
            to.answer(409, {"error": "You already created this model repo", "url": f"{hub.url}/{repo}"})
        else:
            hub.add(repo, private=told.get("visibility") == "private" or told.get("private") is True)
            to.answer(200, {"url": f"{hub.url}/{repo}", "name": repo})

    def of_repo(to: Handler, repo: str, rest: list[str], body: bytes) -> None:
        if repo not in hub.repos:
            to.answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        elif rest[:1] == ["preupload"]:
            modes = [
                {"path": each["path"], "uploadMode": "lfs" if each["path"].endswith(LARGE) else "regular"}
                | {"shouldIgnore": False, "oid": None}
                for each in json.loads(body)["files"]
            ]
            to.answer(200, {"files": modes})
        elif rest[:1] == ["commit"]:
            for line in body.decode().splitlines():
                change = json.loads(line)
                value = change["value"]
                if change["key"] == "file":
                    hub.files(repo)[value["path"]] = base64.b64decode(value["content"])
                elif change["key"] == "lfsFile":
                    hub.files(repo)[value["path"]] = hub.blobs[value["oid"]]
                elif change["key"] == "deletedFile":
                    del hub.files(repo)[value["path"]]
            commit = hub.commit(repo)
            to.answer(200, {"commitUrl": f"{hub.url}/{repo}/commit/{commit}", "commitOid": commit})
        elif rest[:1] == ["tree"]:
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in hub.files(repo).items()
            ]
            to.answer(200, tree)
        else:
            siblings = [{"rfilename": name} for name in hub.files(repo)]
            told = {"id": repo, "private": hub.repos[repo]["private"], "sha": hub.commit(repo), "siblings": siblings}
            to.answer(200, told)

    def serve(to: Handler, repo: str, file: str) -> None:
        data = hub.repos.get(repo, {"files": {}})["files"].get(file)
        if data is None:
            to.answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
        else:
            tag = f'"{hashlib.sha1(data).hexdigest()}"'
            to.answer(200, data, X_Repo_Commit=hub.commit(repo), ETag=tag)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
