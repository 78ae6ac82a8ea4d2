"""Brings single files out of pinned repositories of a model hub into the cache, each verified before it is kept.

A hub answers ``<address>/<repository>/resolve/<revision>/<file>``, as huggingface.co and modelscope.cn/models do.
"""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import json
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from models.packages import FetchError

# Bytes of one file: the largest of the standard set has 1.2 GB, and an ONNX file without side files ends at 2 GiB.
FILE_BYTES_MAX = 2 * 1024**3
# Seconds without a byte, while connecting or reading, before the connection counts as cut.
SILENCE_SECONDS_MAX = 30.0
# Connections that may be cut or refused for one file before this run gives up; the next run goes on where it ended.
ATTEMPTS_MAX = 4
# Seconds before the second attempt; each further wait is twice as long.
_WAIT_SECONDS = 0.5
# Seconds between two lines of progress: readable in a terminal and in a build's log alike.
_PROGRESS_SECONDS = 5.0
_CHUNK_BYTES = 1024**2
# Answers that another attempt may change (RFC 9110, RFC 6585); any other refusal is final.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_HELP = "Set LENSMESH_HUB_URL to a hub or mirror that this machine reaches (https://host), or use the model set lite."


@dataclass(frozen=True)
class Repository:
    """A repository at a hub, its pinned revision, and its files with their SHA-256 where that is known beforehand."""

    hub: str
    name: str
    revision: str
    files: Mapping[str, str | None]


class Lock:
    """What the first fetch found: the commit of each repository, the SHA-256 of each file. Enforced ever after.

    It holds for the revision that was asked for then; where the sources ask for another one, it is made anew.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def commit(self, repository: Repository) -> str | None:
        """The commit that the repository's first file came from."""
        found: str | None = self._entry(repository).get("commit")
        return found

    def sha256(self, repository: Repository, file: str) -> str | None:
        """The hash that the file had when it was first fetched."""
        found: str | None = self._entry(repository).get("files", {}).get(file)
        return found

    def record(self, repository: Repository, commit: str | None, file: str, sha256: str) -> None:
        """Adds a file that was just verified, and writes the lock."""
        entry = self._entry(repository) or {"revision": repository.revision, "commit": commit, "files": {}}
        entry["files"][file] = sha256
        self._known[repository.name] = entry
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps(self._known, indent=2, sort_keys=True) + "\n")
        fresh.replace(self.path)

    def _entry(self, repository: Repository) -> dict[str, Any]:
        entry: dict[str, Any] = self._known.get(repository.name, {})
        return entry if entry.get("revision") == repository.revision else {}


@dataclass
class _Facts:
    """What the hub says of a file, gathered over its redirects: the headers are the hub's, the bytes a store's."""

    headers: dict[str, str] = field(default_factory=dict)

    def learn(self, headers: http.client.HTTPMessage) -> None:
        """Keeps what earlier answers did not say."""
        for name in ("X-Repo-Commit", "X-Linked-Etag", "X-Linked-Size", "ETag"):
            if headers.get(name):
                self.headers.setdefault(name, str(headers[name]))

    @property
    def commit(self) -> str | None:
        """The commit behind the revision."""
        return self.headers.get("X-Repo-Commit")

    @property
    def etag(self) -> str:
        """SHA-256 of a large file, git's SHA-1 of a small one; other servers have other notions."""
        return self.headers.get("X-Linked-Etag", self.headers.get("ETag", "")).removeprefix("W/").strip('"').lower()


class Hub:
    """Files of hubs in the cache's folder, by their SHA-256; ``mirror`` takes the place of every hub's own address."""

    def __init__(self, folder: Path, lock: Lock, say: Callable[[str], None], *, mirror: str = "") -> None:
        self._folder, self._lock, self._say, self._mirror = folder, lock, say, mirror

    def expected(self, repository: Repository, file: str) -> str | None:
        """The SHA-256 that the file must have, where it is pinned or locked."""
        return repository.files[file] or self._lock.sha256(repository, file)

    def bring(self, repository: Repository, file: str) -> Path:
        """The verified file, downloaded unless it is here. Raises FetchError."""
        wanted = self.expected(repository, file)
        if wanted is not None and (self._folder / wanted).exists():
            return self._folder / wanted
        self._folder.mkdir(parents=True, exist_ok=True)
        part, facts = self._download(repository, file)
        with part.open("rb") as data:
            found = hashlib.file_digest(data, "sha256").hexdigest()
        problem = self._problem(repository, file, part, facts, found)
        if problem:
            part.unlink()
            raise FetchError(f"{repository.name}/{file}: {problem} Nothing of it was kept.")
        part.rename(self._folder / found)
        self._lock.record(repository, facts.commit, file, found)
        self._say(f"{repository.name}/{file}: {(self._folder / found).stat().st_size / 1e6:.1f} MB, verified")
        return self._folder / found

    def _problem(self, repository: Repository, file: str, part: Path, facts: _Facts, found: str) -> str:
        """Why the downloaded file may not be used; empty where it may."""
        pinned, locked = repository.files[file], self._lock.sha256(repository, file)
        if pinned and found != pinned:
            return f"it has SHA-256 {found}, pinned is {pinned}. It was changed or damaged on the way."
        if locked and found != locked:
            return (
                f"it has SHA-256 {found}, but {self._lock.path.name} holds {locked} since it was first fetched. It was "
                "changed at the hub. If you trust the new file, remove its entry there and run this again."
            )
        if pinned or locked:
            return ""  # that outweighs what a hub or a store behind it calls a hash
        commit = self._lock.commit(repository)
        if commit and facts.commit and facts.commit != commit:
            return f"it is of commit {facts.commit}, but {self._lock.path.name} holds {commit}."
        if re.fullmatch(r"[0-9a-f]{64}", facts.etag) and found != facts.etag:
            return f"it has SHA-256 {found}, the hub says {facts.etag}. It was damaged on the way; run this again."
        if facts.commit and re.fullmatch(r"[0-9a-f]{40}", facts.etag) and _git_sha1(part) != facts.etag:
            return f"its git hash is not the hub's {facts.etag}. It was damaged on the way; run this again."
        return ""

    def _download(self, repository: Repository, file: str) -> tuple[Path, _Facts]:
        """The whole file as a ``.part``, over as many connections as it takes. Raises FetchError."""
        base = (self._mirror or repository.hub).rstrip("/")
        revision = self._lock.commit(repository) or repository.revision
        url = f"{base}/{repository.name}/resolve/{urllib.parse.quote(revision, safe='')}/{urllib.parse.quote(file)}"
        if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
            raise FetchError(f"LENSMESH_HUB_URL: {base!r} is no address of the form https://host")
        error: Exception = OSError("never tried")
        for attempt in range(ATTEMPTS_MAX):
            if attempt:
                time.sleep(_WAIT_SECONDS * 2 ** (attempt - 1))
                self._say(f"{repository.name}/{file}: {_reason(error)}; attempt {attempt + 1} of {ATTEMPTS_MAX}")
            try:
                return self._continue(url, f"{repository.name}/{file}")
            except urllib.error.HTTPError as refused:
                if refused.code not in _PASSING:
                    raise FetchError(
                        f"{url} answered {refused.code} {refused.reason}. Is {base} a hub that holds {repository.name} "
                        f"at {revision}? {_HELP}"
                    ) from None
                error = refused
            except (OSError, http.client.HTTPException) as cut:
                error = cut
        raise FetchError(
            f"{repository.name}/{file} could not be had from {base}: {_reason(error)}, {ATTEMPTS_MAX} times. "
            f"What has arrived is kept, and the next run goes on from there. {_HELP}"
        ) from error

    def _continue(self, url: str, name: str) -> tuple[Path, _Facts]:
        """One connection: what is missing of the file. Raises OSError, HTTPException or FetchError."""
        with _opened(url, 0) as (answer, facts):
            part = self._part(url, facts)
            have = part.stat().st_size if part.exists() else 0
            size = _size(answer, facts)
            self._room_for(name, size, have)
            if not have:
                self._stream(answer, part, 0, size, name)
        if have and have != size:
            # The first answer told which file it is; only now is it known that the part is a part of it.
            with _opened(url, have) as (answer, again):
                resumed = answer.status == http.HTTPStatus.PARTIAL_CONTENT and again.etag == facts.etag
                self._stream(answer, part, have if resumed else 0, size, name)
        if size is not None and part.stat().st_size != size:
            raise ConnectionError(f"the connection was cut after {part.stat().st_size / 1e6:.1f} MB")
        return part, facts

    def _part(self, url: str, facts: _Facts) -> Path:
        """A name that no other file and no other version of this one has."""
        identity = hashlib.sha256(f"{url} {facts.commit} {facts.etag}".encode()).hexdigest()
        return self._folder / f"{identity[:32]}.part"

    def _room_for(self, name: str, size: int | None, have: int) -> None:
        if size is not None and size > FILE_BYTES_MAX:
            raise FetchError(f"{name} has {size} bytes; at most {FILE_BYTES_MAX} are fetched")
        free = shutil.disk_usage(self._folder).free
        if size is not None and size - have > free:
            raise FetchError(f"{name}: {(size - have) / 1e6:.0f} MB are missing, the disk has {free / 1e6:.0f} MB free")

    def _stream(self, answer: http.client.HTTPResponse, part: Path, offset: int, size: int | None, name: str) -> None:
        """Appends the answer at ``offset`` and says how far it is."""
        done, said = offset, time.monotonic()
        with part.open("r+b" if offset else "wb") as target:
            target.seek(offset)
            while chunk := answer.read1(_CHUNK_BYTES):
                done += len(chunk)
                if done > min(FILE_BYTES_MAX, size or FILE_BYTES_MAX):
                    raise FetchError(f"{name}: the hub sends more bytes than it said ({size}) or than are allowed")
                target.write(chunk)
                if time.monotonic() - said >= _PROGRESS_SECONDS:
                    said = time.monotonic()
                    share = f" of {size / 1e6:.1f} MB, {100 * done // size} %" if size else " MB"
                    self._say(f"{name}: {done / 1e6:.1f}{share}")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to https alone, or from a hub on loopback to loopback; remembers what each answer says of the file."""

    def __init__(self, facts: _Facts) -> None:
        self._facts = facts

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """The request to go on with. Raises FetchError for an address that is not followed."""
        self._facts.learn(headers)
        if urllib.parse.urlsplit(newurl).scheme != "https" and not (_loopback(req.full_url) and _loopback(newurl)):
            raise FetchError(f"{req.full_url} redirects to {newurl}; only https is followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextmanager
def _opened(url: str, offset: int) -> Iterator[tuple[http.client.HTTPResponse, _Facts]]:
    """The answer to a GET from byte ``offset`` on, redirects followed, with what the hub said of the file."""
    # A transparently compressed answer would have another length and no ranges.
    headers = {"Accept-Encoding": "identity", "User-Agent": "lensmesh"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    facts = _Facts()
    opener = urllib.request.build_opener(_Redirects(facts))
    with opener.open(urllib.request.Request(url, headers=headers), timeout=SILENCE_SECONDS_MAX) as answer:
        facts.learn(answer.headers)
        yield answer, facts


def _size(answer: http.client.HTTPResponse, facts: _Facts) -> int | None:
    """Bytes of the whole file, where the hub or the store says."""
    stated = facts.headers.get("X-Linked-Size") or answer.headers.get("Content-Length")
    return int(stated) if stated and stated.isdigit() else None


def _loopback(url: str) -> bool:
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        return urllib.parse.urlsplit(url).scheme == "http" and ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _git_sha1(path: Path) -> str:
    """The object id that git gives the file."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as data:
        while chunk := data.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    """One line about what went wrong."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the hub answered {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return f"no hub is reachable ({error.reason})"
    return str(error) or type(error).__name__
