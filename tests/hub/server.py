"""A hub on this machine: the parts of the protocol that the libraries use, with faults on request.

Repositories live in memory: `hub.add(kind, name, files, ...)` makes a commit of one. Small files
are answered directly, large formats by a redirect to a signed address on another host, as on the
real hub. `hub.faults` is a list of faults, each met by the first requests that its pattern fits.
"""

import base64
import hashlib
import json
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

# Tokens: reads gated repositories; reads what is open; writes and reads the private ones.
READER, STRANGER, WRITER = "hf_reader", "hf_stranger", "hf_writer"
OWNERS = ("owner", "org")  # in whose names the writer may write
LARGE = re.compile(r"\.(safetensors|bin|parquet|pth|model)$|(^|/)tokenizer\.json$")
REPO = r"/api/(models|datasets)/([^/]+/[^/]+)"
ERRORS = {"RepoNotFound": 404, "RevisionNotFound": 404, "EntryNotFound": 404}


@dataclass
class Repository:
    """Commits of a repository: by commit, the bytes of each path."""

    main: str
    gated: str | bool = False
    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)


@dataclass
class Fault:
    """What goes wrong: a status, `reset` (no answer) or `cut` (half a body), so many times."""

    kind: int | str
    pattern: str = ""
    times: int = 1
    retry_after: str | None = None


class Hub:
    """The server, its repositories, what it was asked, and what it does wrong."""

    def __init__(self):
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.faults: list[Fault] = []
        self.chance, self.random = {}, random.Random(0)
        self.requests: list[tuple[str, str, str | None]] = []
        self.times: list[float] = []  # of the requests
        self.sent = 0
        self.blobs: dict[str, bytes] = {}
        self.collections: dict[str, dict] = {}
        self.lock = threading.Lock()
        handler = type("Bound", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return self.server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(
        self, kind: str, name: str, files: Mapping[str, bytes | str], commit: str, gated=False
    ) -> Repository:
        """Make a commit of a repository; it becomes `main`."""
        repo = self.repositories.setdefault((kind, name), Repository(commit))
        repo.main, repo.gated = commit, gated
        repo.commits[commit] = {
            path: text.encode() if isinstance(text, str) else text for path, text in files.items()
        }
        return repo

    def quiet(self) -> None:
        """Forget faults and requests."""
        self.faults, self.chance, self.requests, self.times, self.sent = [], {}, [], [], 0

    def asked(self, pattern: str) -> list[str]:
        """Return the paths of the requests that fit a pattern."""
        return [path for _, path, _ in self.requests if re.search(pattern, path)]

    def fault(self, path: str) -> Fault | None:
        """Return the fault that a request meets."""
        with self.lock:
            for one in self.faults:
                if one.times > 0 and re.search(one.pattern, path):
                    one.times -= 1
                    return one
            draw = self.random.random() if self.chance else 1
            for kind, share in self.chance.items():
                if draw < share:
                    return Fault(kind, retry_after="0" if kind == 429 else None)
                draw -= share
        return None


def git(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


class _Refused(Exception):
    def __init__(self, status: int, code: str, words: str):
        self.status, self.code, self.words = status, code, words


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: Hub

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_POST(self):
        self.do_GET()

    def do_PUT(self):
        self.do_GET()

    def do_GET(self):
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        hub = self.hub
        with hub.lock:
            hub.requests.append((self.command, self.path, self.headers.get("Range")))
            hub.times.append(time.monotonic())
        fault = hub.fault(self.path)
        self.cut = fault is not None and fault.kind == "cut"
        try:
            if fault is not None and fault.kind == "reset":
                self.reset()
            elif fault is not None and not self.cut:
                wait = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
                self.reply(b"", fault.kind, wait)
            else:
                self.route()
        except _Refused as one:
            value = {"error": one.words}
            self.reply(value, one.status, {"X-Error-Code": one.code, "X-Error-Message": one.words})
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def reset(self):
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True
        raise ConnectionResetError

    def reply(self, body, status=200, headers=None):
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.cut:
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return
        self.wfile.write(body)
        self.hub.sent += len(body)

    def token(self) -> str | None:
        return self.headers.get("Authorization", "").removeprefix("Bearer ").strip() or None

    def found(self, kind: str, name: str, revision: str) -> tuple[Repository, str]:
        repo = self.hub.repositories.get((kind, name))
        if repo is None or (repo.private and self.token() != WRITER):
            raise _Refused(404 if self.token() else 401, "RepoNotFound", "Repository not found")
        commit = repo.main if revision in ("main", "HEAD") else revision
        if commit not in repo.commits:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repo, commit

    def route(self):
        url = urlsplit(self.path)
        path, query = unquote(url.path), parse_qs(url.query)
        if match := re.fullmatch(r"/cdn/([0-9a-f]{64})", path):
            if "Signature" not in query or self.token():
                raise _Refused(403, "Denied", "a signature, and no token, is expected here")
            return self.send(self.hub.blobs[match[1]], match[1], {})
        if match := re.fullmatch(rf"{REPO}(?:/revision/(.+))?", path):
            kind, name, revision = match.groups()
            repo, commit = self.found(kind, name, revision or "main")
            siblings = [{"rfilename": one} for one in sorted(repo.commits[commit])]
            more = {"sha": commit, "gated": repo.gated, "private": repo.private, "tags": []}
            return self.reply({"id": name, "siblings": siblings} | more)
        if match := re.fullmatch(rf"{REPO}/paths-info/([^/]+)", path):
            repo, commit = self.found(*match.groups())
            given = parse_qs(self.body.decode())
            if (self.headers.get("Content-Type") or "").startswith("application/json"):
                given = json.loads(self.body)
            entries = {one["path"]: one for one in self.entries(repo, commit, "", True)}
            paths = [one.strip("/") for one in given.get("paths", [])]
            return self.reply([entries[one] for one in paths if one in entries])
        if match := re.fullmatch(rf"{REPO}/tree/([^/]+)(?:/(.*))?", path):
            kind, name, revision, under = match.groups()
            repo, commit = self.found(kind, name, revision)
            deep = query.get("recursive", ["false"])[0].lower() in ("true", "1")
            entries = self.entries(repo, commit, (under or "").strip("/"), deep)
            if under and not entries:
                raise _Refused(404, "EntryNotFound", f"no {under}")
            return self.reply(entries)
        if match := re.fullmatch(r"(/datasets)?/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            kind = "datasets" if match[1] else "models"
            return self.resolve(kind, *match.groups()[1:])
        if not self.write(path, query):
            raise _Refused(404, "EntryNotFound", "unknown address")
        return None

    # Uploads --------------------------------------------------------------------------------------

    def write(self, path: str, query: Mapping[str, list[str]]) -> bool:
        """Answer a request that writes; False: it is not one."""
        if self.command == "GET" and path == "/api/collections":
            owner = query.get("owner", [""])[0]
            found = [one for one in self.hub.collections.values() if one["owner"] == owner]
            self.reply([{k: v for k, v in one.items() if k != "position"} for one in found])
        elif self.command == "PUT" and (match := re.fullmatch(r"/put/([0-9a-f]{64})", path)):
            checksum = hashlib.sha256(self.body).hexdigest()
            if checksum != match[1] or self.token():
                raise _Refused(400, "Denied", "another content, or a token, which belongs not here")
            self.hub.blobs[checksum] = self.body
            self.reply(b"")
        elif self.command == "POST":
            given = [json.loads(line) for line in self.body.splitlines()]
            return self.post(path, given)
        else:
            return False
        return True

    def post(self, path: str, given: list[dict]) -> bool:
        if path == "/api/validate-yaml":
            self.reply({"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            self.create(given[0])
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            self.may_write(match[1])
            modes = {
                one["path"]: "lfs" if LARGE.search(one["path"]) else "regular"
                for one in given[0]["files"]
            }
            answers = [
                {"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": None}
                for name, mode in modes.items()
            ]
            self.reply({"files": answers})
        elif match := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            self.may_write(match[1])
            objects = [self.lfs(one) for one in given[0]["objects"]]
            self.reply({"transfer": "basic", "objects": objects})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            self.commit(match[1], given)
        elif path == "/api/collections":
            self.may_write(f"{given[0]['namespace']}/collection")
            slug = f"{given[0]['namespace']}/{len(self.hub.collections):024x}"
            made = {"slug": slug, "title": given[0]["title"], "owner": given[0]["namespace"]}
            made |= {"items": [], "lastUpdated": "2024-01-01T00:00:00.000Z", "position": 0}
            made |= {"private": given[0]["private"], "theme": "blue", "upvotes": 0}
            self.hub.collections[slug] = made
            self.reply(made)
        elif match := re.fullmatch(r"/api/collections/([^/]+/[^/]+)/items", path):
            self.may_write(match[1])
            one = self.hub.collections[match[1]]
            item = {"_id": f"{len(one['items']):024x}", "position": len(one["items"])}
            one["items"].append(item | given[0]["item"])
            self.reply(one)
        else:
            return False
        return True

    def may_write(self, name: str) -> None:
        if self.token() is None:
            raise _Refused(401, "Denied", "Invalid username or password.")
        if self.token() != WRITER or name.split("/")[0] not in OWNERS:
            raise _Refused(403, "Denied", "You don't have the rights to write here.")

    def create(self, given: Mapping[str, str]) -> None:
        name = f"{given['organization']}/{given['name']}"
        self.may_write(name)
        address = {"url": f"{self.hub.url}/{name}"}
        if ("models", name) in self.hub.repositories:
            return self.reply(address | {"error": "You already created this model repo"}, 409)
        repo = self.hub.add("models", name, {".gitattributes": "*"}, "0" * 40)
        repo.private = given.get("visibility") == "private" or bool(given.get("private"))
        return self.reply(address)

    def lfs(self, one: Mapping[str, str]) -> dict:
        answer = {"oid": one["oid"], "size": one["size"]}
        if one["oid"] in self.hub.blobs:
            return answer
        # A signed address, to which no token is sent.
        place = f"http://localhost:{self.hub.port}/put/{one['oid']}?Signature=secret"
        return answer | {"actions": {"upload": {"href": place}}}

    def commit(self, name: str, given: list[dict]) -> None:
        self.may_write(name)
        repo = self.hub.repositories["models", name]
        files = dict(repo.commits[repo.main])
        for one in given:
            key, value = one["key"], one["value"]
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
        content = json.dumps([repo.main, *sorted((k, git(v)) for k, v in files.items())])
        commit = hashlib.sha1(content.encode()).hexdigest()
        self.hub.add("models", name, files, commit, repo.gated)
        address = f"{self.hub.url}/{name}/commit/{commit}"
        self.reply({"success": True, "commitOid": commit, "commitUrl": address})

    def entries(self, repo: Repository, commit: str, under: str, deep: bool) -> list[dict]:
        prefix, found = f"{under}/" if under else "", {}
        for path, data in sorted(repo.commits[commit].items()):
            if not path.startswith(prefix):
                continue
            parts = path[len(prefix) :].split("/")
            for depth in range(1, len(parts) if deep else min(len(parts), 2)):
                folder = prefix + "/".join(parts[:depth])
                one = {"type": "directory", "path": folder, "oid": git(folder.encode()), "size": 0}
                found.setdefault(folder, one)
            if deep or len(parts) == 1:
                one = {"type": "file", "path": path, "oid": git(data), "size": len(data)}
                if LARGE.search(path):
                    checksum = hashlib.sha256(data).hexdigest()
                    one["lfs"] = {"oid": checksum, "size": len(data), "pointerSize": 134}
                found[path] = one
        return list(found.values())

    def resolve(self, kind: str, name: str, revision: str, path: str):
        repo, commit = self.found(kind, name, revision)
        if repo.gated and self.token() != READER:
            status = 401 if self.token() is None else 403
            raise _Refused(status, "GatedRepo", f"Access to {name} is restricted.")
        common = {"X-Repo-Commit": commit}
        data = repo.commits[commit].get(path)
        if data is None:
            raise _Refused(404, "EntryNotFound", "Entry not found")
        if not LARGE.search(path):
            return self.send(data, git(data), common)
        checksum = hashlib.sha256(data).hexdigest()
        self.hub.blobs[checksum] = data
        place = f"http://localhost:{self.hub.port}/cdn/{checksum}?Expires=9&Signature=secret"
        linked = {"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{checksum}"'}
        return self.reply(b"", 302, common | linked | {"Location": place})

    def send(self, data: bytes, etag: str, headers: Mapping[str, str]):
        headers, status = dict(headers) | {"ETag": f'"{etag}"', "Accept-Ranges": "bytes"}, 200
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            first, last = int(match[1]), min(int(match[2] or len(data) - 1), len(data) - 1)
            if first > last:
                return self.reply(b"", 416, {"Content-Range": f"bytes */{len(data)}"})
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            data, status = data[first : last + 1], 206
        return self.reply(data, status, headers)
