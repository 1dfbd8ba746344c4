"""A hub on this machine, for tests: as much of the Hub's API, and of ModelScope's, as downloads ask for."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

# By name ("models/me/safe", "datasets/me/rows"), commit and file.
Repositories = Mapping[str, Mapping[str, Mapping[str, bytes]]]


class Hub(BaseHTTPRequestHandler):
    """Answers from what the server holds, and keeps there what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append((self.command, self.path, self.headers.get("Authorization")))
        path = unquote(urlsplit(self.path).path)
        if self.server.leads_to:
            return self.answer(b"<html>Sign in</html>", 302, {"Location": self.server.leads_to})
        if self.server.refuses:
            return self.refuse()
        if path.startswith("/api/v1/"):
            return self.modelscope(path.removeprefix("/api/v1/"), parse_qs(urlsplit(self.path).query))
        if path == "/api/models/me/model":
            return self.answer({"id": "me/model", "private": True, "sha": "a" * 40, "siblings": []})
        if found := re.fullmatch(r"/api/((?:models|datasets)/[^/]+/[^/]+)(?:/revision/(.+))?", path):
            commit, files = self.files(found[1], found[2])
            return files is not None and self.answer(
                {"id": found[1].split("/", 1)[1], "sha": commit, "private": False, "gated": False, "disabled": False,
                 "downloads": 1, "likes": 0, "tags": [], "siblings": [{"rfilename": name} for name in files]}
            )  # fmt: skip
        if found := re.fullmatch(r"/api/((?:models|datasets)/[^/]+/[^/]+)/tree/([^/]+)(/.+)?", path):
            if found[3]:  # no repository here has folders
                return self.file(self.server.revisions.get(found[2], found[2]), None)
            _, files = self.files(found[1], found[2])
            return files is not None and self.answer([self.entry(name, files[name]) for name in files])
        if found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/(refs/pr/\d+|[^/]+)/(.+)", path):
            commit, files = self.files(("datasets/" if found[1] else "models/") + found[2], found[3])
            if files is None or self.closed(found[2]):
                return None
            if found[4].endswith(".safetensors") and self.server.elsewhere and found[4] in files:
                return self.lead_elsewhere(commit, f"{found[2]}/{commit}/{found[4]}", files[found[4]])
            return self.file(commit, files.get(found[4]))
        if found := re.fullmatch(r"/elsewhere/([^/]+/[^/]+)/([^/]+)/(.+)", path):
            return self.answer(self.server.repositories[f"models/{found[1]}"][found[2]][found[3]])
        self.answer({"error": f"unknown {path}"}, 404)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.command, self.path, self.headers.get("Authorization")))
        path = unquote(urlsplit(self.path).path)
        if self.server.refuses or b"refused" in body:
            return self.refuse()
        if path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            return self.answer({"url": f"{self.server.url}/me/model", "name": "me/model"})
        if "/preupload/" in path:
            told = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            return self.answer({"files": told})
        if "/commit/" in path:
            self.server.commits.append(body)
            url = f"{self.server.url}/me/model/commit/1"
            return self.answer({"success": True, "commitUrl": url, "commitOid": "1", "hookOutput": ""})
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if found := re.fullmatch(r"/api/((?:models|datasets)/[^/]+/[^/]+)/paths-info/(.+)", path):
            _, files = self.files(found[1], found[2])
            asked = json.loads(body)["paths"] if body.startswith(b"{") else re.findall(rb"paths=([^&]+)", body)
            asked = [unquote(one.decode()) if isinstance(one, bytes) else one for one in asked]
            return files is not None and self.answer([self.entry(name, files[name]) for name in asked if name in files])
        self.answer({"error": f"unknown {path}"}, 404)

    def files(self, repository: str, revision: str | None) -> tuple[str, dict[str, bytes] | None]:
        """The commit and its files; answers, and gives None, when there is no such repository or revision."""
        repositories = self.server.repositories
        commit = self.server.revisions.get(revision or "main", revision)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and self.server.tokens and token not in self.server.tokens:
            self.answer({"error": "x"}, 401, {"X-Error-Message": "Invalid credentials in Authorization header"})
            return "", None
        if commit not in repositories.get(repository, {}):
            kind = "RevisionNotFound" if repository in repositories else "RepoNotFound"
            # As the Hub does: who has not said who it is does not learn what there is.
            status = 404 if kind == "RevisionNotFound" or token or not self.server.tokens else 401
            self.answer({"error": kind}, status, {"X-Error-Code": kind})
            return "", None
        return commit, repositories[repository][commit]

    def closed(self, repository: str) -> bool:
        """Whether this repository is gated for whoever asks; answers, if so."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token in self.server.gated.get(repository, {token}):
            return False
        return self.answer({"error": "gated"}, 403 if token else 401, {"X-Error-Code": "GatedRepo"})

    def lead_elsewhere(self, commit: str, name: str, content: bytes) -> bool:
        """To another host, where large files are kept, as the Hub does."""
        headers = {"X-Repo-Commit": commit, "X-Linked-Size": str(len(content)), "X-Linked-ETag": f'"{etag(content)}"'}
        return self.answer(
            b"", 302, headers | {"Location": f"http://localhost:{self.server.server_port}/elsewhere/{name}"}
        )

    def modelscope(self, path: str, asked: dict[str, list[str]]) -> bool:
        """What ModelScope's client asks for a listing and for files."""
        if path == "repos/internalAccelerationInfo":
            return self.answer({"Code": 200, "Success": True, "Data": {"InternalRegionId": ""}})
        found = re.fullmatch(r"(models/[^/]+/[^/]+)/(revisions|repo/files|repo)", path)
        commits = self.server.repositories.get(found[1], {}) if found else {}
        commit = self.server.revisions.get(asked.get("Revision", ["master"])[0])
        if commit not in commits and not (commits and found[2] == "revisions"):
            return self.answer({"Code": 10010205001, "Success": False, "Message": "model not found"}, 404)
        if found[2] == "revisions":
            branches = [{"Revision": name} for name in self.server.revisions]
            return self.answer(
                {"Code": 200, "Success": True, "Data": {"RevisionMap": {"Branches": branches, "Tags": []}}}
            )
        files = commits[commit]
        if found[2] == "repo":
            return self.answer(files[asked["FilePath"][0]])
        listed = [
            {"Name": name, "Path": name, "Type": "blob", "Size": len(content), "Revision": commit}
            | {"Sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()
        ]
        return self.answer({"Code": 200, "Success": True, "Data": {"Files": listed}})

    def entry(self, name: str, content: bytes) -> dict:
        return {"type": "file", "path": name, "size": len(content), "oid": etag(content)}

    def file(self, commit: str, content: bytes | None) -> None:
        if content is None:
            return self.answer(
                {"error": "EntryNotFound"}, 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}
            )
        self.answer(content, 200, {"X-Repo-Commit": commit, "ETag": f'"{etag(content)}"', "Accept-Ranges": "none"})

    def refuse(self) -> None:
        """As a badly made server would: it shows what it was sent."""
        sent = self.headers.get("Authorization", "")
        said = {"error": f"no, not with {sent}"}
        self.answer(said, self.server.refuses or 403, {"X-Error-Message": f"no, not with {sent}", "X-Request-Id": "1"})

    def answer(self, body: object, status: int = 200, headers: dict | None = None) -> bool:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        return True

    def log_message(self, *_: object) -> None:
        pass


def etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def open_hub(repositories: Repositories, revisions: Mapping[str, str]) -> ThreadingHTTPServer:
    """A hub with these repositories, on a free port, at `url`; `revisions` are names of commits, "main" among them.

    `asked` holds (method, path, Authorization) of each request. To be set: `refuses`, a status for every answer;
    `leads_to`, an address that every request is sent to; `tokens`, those that are known (empty: any); `gated`, by
    repository the tokens that have access; `elsewhere`, whether weights are answered from another address.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.repositories, server.revisions = repositories, revisions
    server.refuses, server.leads_to, server.tokens, server.gated, server.elsewhere = 0, "", set(), {}, False
    server.asked, server.created, server.commits = [], [], []
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server
