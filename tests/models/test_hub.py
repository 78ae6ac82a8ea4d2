"""Files from a hub: what is verified, resumed and refused, on a real HTTP server."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from models import hub
from models.hub import Hub, Lock, Repository
from models.packages import FetchError
from tests.models.hub_server import COMMIT, LocalHub, serving

_BIG = bytes(range(256)) * 4096
_SMALL = b'{"size": 224}'
_BIG_SHA256 = hashlib.sha256(_BIG).hexdigest()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A hub with a large and a small file; nobody waits between two attempts."""
    monkeypatch.setattr(hub, "_WAIT_SECONDS", 0.0)
    folder = tmp_path / "hub" / "some" / "model"
    (folder / "onnx").mkdir(parents=True)
    (folder / "onnx" / "model.onnx").write_bytes(_BIG)
    (folder / "config.json").write_bytes(_SMALL)
    with serving(tmp_path / "hub") as running:
        yield running


class Fetcher:
    """Brings files of one repository into a fresh cache, one run a call."""

    def __init__(self, server: LocalHub, folder: Path, sha256: str | None = None) -> None:
        self.folder = folder / "cache"
        self.lock_path = folder / "some.lock.json"
        files = {"onnx/model.onnx": sha256, "config.json": None}
        self.repository = Repository("https://hub.invalid", "some/model", "main", files)
        self.mirror = server.url
        self.said: list[str] = []

    def bring(self, file: str = "onnx/model.onnx") -> bytes:
        """The file's content after a run of its own."""
        found = Hub(self.folder, Lock(self.lock_path), self.said.append, mirror=self.mirror)
        return found.bring(self.repository, file).read_bytes()

    @property
    def kept(self) -> list[str]:
        """Names in the cache."""
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def fetcher(server: LocalHub, tmp_path: Path) -> Fetcher:
    """Without any hash known beforehand."""
    return Fetcher(server, tmp_path)


def test_a_first_fetch_is_recorded(fetcher: Fetcher) -> None:
    """Files come whole, redirected or not; the lock then holds the commit and their hashes."""
    assert _BIG == fetcher.bring()
    assert _SMALL == fetcher.bring("config.json")

    files = {"onnx/model.onnx": _BIG_SHA256, "config.json": hashlib.sha256(_SMALL).hexdigest()}
    entry = {"revision": "main", "commit": COMMIT, "files": files}
    assert {"some/model": entry} == json.loads(fetcher.lock_path.read_text())
    assert sorted(files.values()) == fetcher.kept


def test_what_is_there_is_not_asked_for_again(fetcher: Fetcher, server: LocalHub) -> None:
    """A second run makes no request and says nothing."""
    fetcher.bring()
    asked, said = len(server.asked), len(fetcher.said)

    assert _BIG == fetcher.bring()

    assert (asked, said) == (len(server.asked), len(fetcher.said))


def test_a_locked_repository_is_asked_for_by_its_commit(fetcher: Fetcher, server: LocalHub) -> None:
    """After the first file, all others come from the commit that it came from, whatever the branch is then."""
    fetcher.bring()

    fetcher.bring("config.json")

    assert f"/some/model/resolve/{COMMIT}/config.json" == server.asked[-1][0]


def test_a_cut_connection_is_resumed(fetcher: Fetcher, server: LocalHub) -> None:
    """What has arrived before a cut is not downloaded again."""
    server.cuts = [400_000]

    assert _BIG == fetcher.bring()

    assert 400_000 in [first for _, first in server.asked]


def test_the_next_run_goes_on_where_the_last_ended(fetcher: Fetcher, server: LocalHub) -> None:
    """A run that gives up keeps its part; the next one asks for the rest alone."""
    # The first connection sends; each later attempt learns which file it is, and then asks for the rest.
    server.cuts = [400_000, *[0] * 2 * (hub.ATTEMPTS_MAX - 1)]
    with pytest.raises(FetchError, match=r"cut after 0\.4 MB.*next run goes on"):
        fetcher.bring()
    server.cuts = []

    assert _BIG == fetcher.bring()

    assert 400_000 == server.asked[-1][1]


def test_a_hub_without_ranges_sends_the_file_again(fetcher: Fetcher, server: LocalHub) -> None:
    """Where a range is ignored, the part is overwritten instead of continued."""
    server.cuts, server.ranges = [400_000], False

    assert _BIG == fetcher.bring()


def test_a_file_changed_after_its_first_fetch_is_refused(fetcher: Fetcher, server: LocalHub, tmp_path: Path) -> None:
    """Another cache with the same lock refuses what the hub holds now, and says what to do about it."""
    fetcher.bring()
    (server.root / "some" / "model" / "onnx" / "model.onnx").write_bytes(_BIG[::-1])
    fetcher.folder = tmp_path / "another"

    with pytest.raises(FetchError, match=rf"some\.lock\.json holds {_BIG_SHA256}.*remove its entry"):
        fetcher.bring()

    assert [] == fetcher.kept


def test_another_revision_is_locked_anew(fetcher: Fetcher, server: LocalHub) -> None:
    """Where the sources pin another revision than the lock was made for, that one is fetched and recorded."""
    fetcher.bring()
    fetcher.repository = replace(fetcher.repository, revision="v2")
    (server.root / "some" / "model" / "onnx" / "model.onnx").write_bytes(_BIG[::-1])
    server.commit = "f" * 40

    assert _BIG[::-1] == fetcher.bring()

    entry = json.loads(fetcher.lock_path.read_text())["some/model"]
    assert ("v2", "f" * 40) == (entry["revision"], entry["commit"])
    assert "/some/model/resolve/v2/onnx/model.onnx" in [path for path, _ in server.asked]


def test_another_commit_is_refused(fetcher: Fetcher, server: LocalHub) -> None:
    """A hub that answers with another commit than the locked one is not believed."""
    fetcher.bring()
    server.commit = "f" * 40

    with pytest.raises(FetchError, match=rf"of commit f{{40}}, but some\.lock\.json holds {COMMIT}"):
        fetcher.bring("config.json")


def test_a_wrong_hash_is_refused(server: LocalHub, tmp_path: Path) -> None:
    """A file that is not the pinned one is not kept, and both hashes are named."""
    fetcher = Fetcher(server, tmp_path, sha256="0" * 64)

    with pytest.raises(FetchError, match=rf"{_BIG_SHA256}, pinned is 0{{64}}"):
        fetcher.bring()

    assert [] == fetcher.kept
    assert not fetcher.lock_path.exists()


def test_a_file_damaged_on_the_way_is_refused(fetcher: Fetcher, server: LocalHub) -> None:
    """On a first fetch the hub's own word about the hash is the measure."""
    server.pretended_sha256 = "1" * 64

    with pytest.raises(FetchError, match=r"the hub says 1{64}"):
        fetcher.bring()

    assert [] == fetcher.kept


def test_a_pinned_hash_outweighs_the_hubs_word(server: LocalHub, tmp_path: Path) -> None:
    """Servers that call something else a hash are no reason to refuse the very file that was pinned."""
    server.pretended_sha256 = "1" * 64

    assert _BIG == Fetcher(server, tmp_path, sha256=_BIG_SHA256).bring()


def test_a_hub_out_of_order_is_asked_again(fetcher: Fetcher, server: LocalHub) -> None:
    """Answers that pass, such as 503 and 429, are waited out."""
    server.refusals = [503, 429]

    assert _BIG == fetcher.bring()


def test_a_file_that_is_not_there_is_final(fetcher: Fetcher, server: LocalHub) -> None:
    """A 404 is said at once with the address, and not asked for again."""
    (server.root / "some" / "model" / "config.json").unlink()

    with pytest.raises(FetchError, match=r"/some/model/resolve/main/config\.json answered 404"):
        fetcher.bring("config.json")

    assert 1 == len(server.asked)


def test_only_https_is_followed(fetcher: Fetcher, server: LocalHub) -> None:
    """A redirect to a plain address elsewhere ends the fetch."""
    server.store = "http://store.invalid"

    with pytest.raises(FetchError, match=r"redirects to http://store\.invalid.*only https"):
        fetcher.bring()


@pytest.mark.parametrize("mirror", ["file:///etc", "ftp://hub.invalid", "hub.invalid"])
def test_an_address_of_another_kind_is_refused(fetcher: Fetcher, mirror: str) -> None:
    """A hub is reached over http or https, and by nothing else that the library could open."""
    fetcher.mirror = mirror

    with pytest.raises(FetchError, match=r"LENSMESH_HUB_URL.*https://host"):
        fetcher.bring()


def test_a_huge_file_is_refused_before_it_comes(
    fetcher: Fetcher, server: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the hub says to be over the limit is not stored at all."""
    monkeypatch.setattr(hub, "FILE_BYTES_MAX", len(_BIG) - 1)

    with pytest.raises(FetchError, match=rf"has {len(_BIG)} bytes; at most"):
        fetcher.bring()

    assert [] == fetcher.kept


def test_progress_is_said_in_lines(fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a file comes, lines say how much of it has arrived."""
    monkeypatch.setattr(hub, "_PROGRESS_SECONDS", 0.0)

    fetcher.bring()

    assert any("of 1.0 MB, 100 %" in line for line in fetcher.said)
    assert fetcher.said[-1].endswith("1.0 MB, verified")


def test_an_unreachable_hub_names_the_setting(fetcher: Fetcher, server: LocalHub) -> None:
    """Where nothing answers, the message says which setting leads to a hub."""
    fetcher.mirror = "http://127.0.0.1:9"  # the discard port: nothing listens

    with pytest.raises(FetchError, match=r"no hub is reachable.*LENSMESH_HUB_URL"):
        fetcher.bring()
