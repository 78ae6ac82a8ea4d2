"""The commands for many stored queries, for trying one, and for matching without indexing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.__main__ import lensmesh
from tests.cli.conftest import Cli
from tests.conftest import Api, PhotoHost, picture

ROOM = "cli-portable"


@pytest.fixture(scope="module")
async def scope(api: Api) -> tuple[str, str]:
    """The arguments for a namespace that this file alone uses."""
    body = {"namespace_name": ROOM, "vector_indexes": ["image", "multimodal", "text", "keyword"]}
    assert (await api.http.post("/namespaces", json=body)).status_code in (200, 409)
    return ("--namespace", ROOM)


def line(name: str, **more: object) -> str:
    """A stored query as a line."""
    query = {"vector_index": "keyword", "type": "text", "value": "trivial"}
    return json.dumps({"collection_ids": ["c"], "queries": [query], "name": name, "min_score": 0.01} | more)


async def test_stored_queries_are_imported_and_exported(cli: Cli, scope: tuple[str, str], tmp_path: Path) -> None:
    """A file and standard input are imported, refused lines are an exit code, and an export can be imported again."""
    source, target = tmp_path / "in.ndjson", tmp_path / "out.ndjson"
    source.write_text(line("one") + "\n\n" + line("bad", min_score=2) + "\n")
    imported = await cli("query", "import", str(source), *scope)
    assert (1, "1 stored, 1 refused\n") == (imported.code, imported.out)
    assert "line 3: min_score: " in imported.err
    piped = await cli("query", "import", "-", *scope, "--json", given=line("two"))
    assert (0, 1, True) == (piped.code, piped.lines[-1]["stored"], piped.lines[-1]["finished"])
    exported = await cli("query", "export", str(target), *scope)
    assert (0, "") == (exported.code, exported.out)
    assert {"one", "two"} == {json.loads(each)["name"] for each in target.read_text().splitlines()}
    again = await cli("query", "import", str(target), *scope)
    assert (0, "2 stored, 0 refused\n") == (again.code, again.out)
    lines = (await cli("query", "export", *scope)).lines
    assert sorted(each["percolator_id"] for each in lines) == sorted(
        json.loads(each)["percolator_id"] for each in target.read_text().splitlines()
    )
    assert [source, target] == sorted(tmp_path.iterdir())


async def test_a_stored_query_is_tried_and_switched(
    cli: Cli, scope: tuple[str, str], photos: PhotoHost, tmp_path: Path
) -> None:
    """A dry run draws its histogram, `percolate` shows what matches, and what is disabled matches nothing."""
    added = await cli(
        "query", "add", "trivial", "--index", "keyword", "--collection", "tried", "--min-score", "0.1", *scope, "--json"
    )
    percolator_id = added.document["percolator_id"]
    await cli("index", photos.picture_url(7_200_001), "--collection", "tried", "--extract", "read", "--wait", *scope)
    shown = await cli("query", "dry-run", percolator_id, *scope)
    assert 0 == shown.code, shown.err
    assert "1 of 1 would have matched" in shown.out
    assert "█" in shown.out
    none = await cli("query", "dry-run", percolator_id, "--min-score", "1", *scope, "--json")
    assert (0, 1, 20) == (none.document["matched"], none.document["evaluated"], len(none.document["histogram"]))
    words = ("percolate", "--collection", "tried", "--text", "trivial words", "--index", "keyword", *scope)
    assert percolator_id in (await cli(*words)).out
    for command, matches in (("disable", []), ("enable", [percolator_id])):
        assert f"{command}d {percolator_id}\n" == (await cli("query", command, percolator_id, *scope)).out
        found = await cli(*words, "--json")
        assert matches == [each["percolator_id"] for each in found.document["matches"]]
    (tmp_path / "a.jpg").write_bytes(picture(7_200_001))
    images = ("--image", str(tmp_path / "a.jpg"), "--image", photos.picture_url(7_200_002))
    assert 0 == (await cli("percolate", "--collection", "tried", *images, *scope)).code
    missing = await cli("query", "dry-run", "nowhere", *scope)
    assert (1, True) == (missing.code, "not_found" in missing.err)


@pytest.mark.parametrize(
    "wrong",
    [
        ("query", "import"),
        ("query", "import", "/nowhere.ndjson"),
        ("query", "export", "/nowhere/out.ndjson"),
        ("query", "dry-run", "x", "--min-score", "2"),
        ("percolate",),
        ("percolate", "--image", "/nowhere.jpg"),
    ],
)
def test_wrong_usage_is_exit_code_2(wrong: tuple[str, ...]) -> None:
    """What can't be meant is said in one sentence on stderr, before the mesh is asked."""
    ended = CliRunner().invoke(lensmesh, wrong, env={"LENSMESH_URL": "http://127.0.0.1:1", "LENSMESH_API_KEY": "key"})
    assert (2, "") == (ended.exit_code, ended.stdout)
    assert "Error: " in ended.stderr
