"""A model hub on loopback for the tests: the paths, headers, redirects and ranges of a real one, and its faults."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

COMMIT = "c0ffee" * 6 + "c0de"
_RESOLVE = re.compile(r"/(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


@dataclass
class LocalHub:
    """Files below ``root`` as ``<repository>/<file>``; what is listed goes wrong with each of its answers in turn."""

    root: Path
    url: str = ""
    commit: str = COMMIT
    # Status codes to answer with, first come first served, instead of the file.
    refusals: list[int] = field(default_factory=list)
    # After how many bytes the connection is cut, likewise.
    cuts: list[int] = field(default_factory=list)
    # Where large files are redirected to; empty: to this server's own store.
    store: str = ""
    ranges: bool = True
    # Say that a file has this hash, whatever it has.
    pretended_sha256: str = ""
    # Paths that were asked for, and the first byte of each.
    asked: list[tuple[str, int]] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests' output stays readable."""

    def do_GET(self) -> None:
        path = unquote(self.path)
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(asked[1]) if asked and self.hub.ranges else 0
        self.hub.asked.append((path, first))
        if self.hub.refusals:
            self.send_error(self.hub.refusals.pop(0))
        elif path.startswith("/store/"):
            self._send(self.hub.root / path.removeprefix("/store/"), first, {})
        elif (wanted := _RESOLVE.fullmatch(path)) and (
            file := self.hub.root / wanted["name"] / wanted["file"]
        ).exists():
            self._resolve(file, first)
        else:
            self.send_error(404)

    def _resolve(self, file: Path, first: int) -> None:
        data = file.read_bytes()
        commit = {"X-Repo-Commit": self.hub.commit}
        if file.suffix != ".onnx":
            sha1 = hashlib.sha1(b"blob %d\0%s" % (len(data), data)).hexdigest()
            self._send(file, first, {**commit, "ETag": f'"{sha1}"'})
            return
        sha256 = self.hub.pretended_sha256 or hashlib.sha256(data).hexdigest()
        self.send_response(302)
        linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(data))}
        store = self.hub.store or f"{self.hub.url}/store"
        for name, value in {**commit, **linked, "Location": f"{store}/{file.relative_to(self.hub.root)}"}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, file: Path, first: int, headers: dict[str, str]) -> None:
        data = file.read_bytes()
        self.send_response(206 if first else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) - first))
        self.end_headers()
        self.wfile.write(data[first : first + self.hub.cuts.pop(0)] if self.hub.cuts else data[first:])


@contextmanager
def serving(root: Path) -> Iterator[LocalHub]:
    """A running hub on a free port."""
    hub = LocalHub(root)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
