"""The commands against the running mesh: their JSON, their tables, their exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.__main__ import lensmesh
from runner.mesh import Mesh
from tests.cli.conftest import NAMESPACE, Cli
from tests.conftest import Api, PhotoHost, picture


async def test_images_are_indexed_and_found(cli: Cli, photos: PhotoHost, tmp_path: Path) -> None:
    """What `index --wait` says DONE of, `search` finds by words, by a URL and by a file, and `task` shows."""
    urls = [photos.picture_url(number) for number in (7_100_001, 7_100_002)]
    indexed = await cli("index", *urls, "--collection", "found", "--extract", "read", "--wait", "--json")
    assert 0 == indexed.code, indexed.err
    assert [(url, "DONE") for url in urls] == [(each["url"], each["status"]) for each in indexed.lines]
    words = await cli("search", "trivial", "--index", "keyword", "--collection", "found", "--json")
    assert set(urls) == {each["url"] for each in words.document["results"]}
    file = tmp_path / "picture.jpg"
    file.write_bytes(picture(7_100_002))
    uploaded = await cli("index", str(file), "--collection", "uploaded", "--wait", "--json")
    assert (0, "DONE") == (uploaded.code, uploaded.document["status"])
    for image in (urls[1], str(file)):
        found = await cli("search", "--image", image, "--collection", "found", "--limit", "1", "--json")
        assert [urls[1]] == [each["url"] for each in found.document["results"]], found.err
    shown = await cli("task", indexed.lines[0]["task_id"])
    assert 0 == shown.code
    assert indexed.lines[0]["asset_id"] in shown.out
    assert (await cli("search", "trivial", "--index", "keyword")).out.count("7100001") == 1


async def test_a_failed_task_is_an_exit_code(cli: Cli, photos: PhotoHost) -> None:
    """`index --wait` ends with 1 when one image of several fails, and `task` of that one does too."""
    urls = [photos.url("nowhere.jpg"), photos.picture_url(7_100_003)]
    indexed = await cli("index", "-", "--collection", "failed", "--wait", "--json", given="\n".join(urls))
    assert 1 == indexed.code
    assert ["FAILED", "DONE"] == [each["status"] for each in indexed.lines]
    shown = await cli("task", indexed.lines[0]["task_id"], "--json")
    assert (1, "fetch_failed") == (shown.code, shown.document["error"]["type"])


async def test_what_is_refused_does_not_stop_the_others(cli: Cli, photos: PhotoHost) -> None:
    """A URL that breaks a rule is a line with its error, and the exit code 1; the others are taken."""
    indexed = await cli("index", "ftp://nowhere", photos.picture_url(7_100_004), "--json")
    assert 1 == indexed.code
    assert "url" == indexed.lines[0]["error"]["violations"][0]["field"]
    assert "task_id" in indexed.lines[1]


async def test_a_task_is_watched_and_cancelled(cli: Cli, photos: PhotoHost) -> None:
    """`task --watch` prints each change up to the end; `--cancel` of an ended task changes nothing."""
    indexed = await cli("index", photos.picture_url(7_100_005), "--json")
    task_id = indexed.document["task_id"]
    watched = await cli("task", task_id, "--watch", "--json")
    assert (0, "DONE") == (watched.code, watched.lines[-1]["status"])
    cancelled = await cli("task", task_id, "--cancel", "--json")
    assert (0, "DONE") == (cancelled.code, cancelled.document["status"])


async def test_stored_queries_and_their_matches(cli: Cli, photos: PhotoHost) -> None:
    """A query that is added is listed, matched by what is indexed next, followed from a cursor, and removed."""
    added = await cli(
        "query", "add", "trivial", "--index", "keyword", "--collection", "watched", "--name", "words",
        "--min-score", "0.1", "--json",
    )  # fmt: skip
    assert 0 == added.code, added.err
    percolator_id = added.document["percolator_id"]
    listed = await cli("query", "list", "--json")
    assert percolator_id in [each["percolator_id"] for each in listed.document["results"]]
    assert percolator_id in (await cli("query", "list")).out
    urls = [photos.picture_url(number) for number in (7_100_006, 7_100_007)]
    indexed = await cli(
        "index", *urls, "--collection", "watched", "--extract", "read", "--percolate", "--wait", "--json"
    )
    tasks = {each["task_id"] for each in indexed.lines}
    seen = await cli("matches", "--collection", "watched", "--json")
    assert tasks == {each["task_id"] for each in seen.document["results"]}
    followed = await cli("matches", "--follow", "--query", percolator_id, "--limit", "2", "--json")
    assert tasks == {each["match"]["task_id"] for each in followed.lines}
    cursor = str(followed.lines[0]["cursor"])
    later = await cli("matches", "--follow", "--cursor", cursor, "--query", percolator_id, "--limit", "1", "--json")
    assert followed.lines[1:] == later.lines
    assert 0 == (await cli("query", "rm", percolator_id)).code
    again = await cli("query", "rm", percolator_id, "--json")
    assert (1, "not_found") == (again.code, json.loads(again.err)["error"]["type"])


async def test_an_empty_namespace_is_no_error(cli: Cli, api: Api) -> None:
    """A search and the matches of a namespace without collections are empty."""
    made = await api.http.post("/namespaces", json={"namespace_name": "cli-empty", "vector_indexes": ["multimodal"]})
    assert made.status_code in (200, 409)
    for command in (("search", "x"), ("matches",)):
        found = await cli(*command, "--json", "--namespace", "cli-empty")
        assert (0, []) == (found.code, found.document["results"])


async def test_refusals_are_exit_code_1(cli: Cli) -> None:
    """What the mesh refuses is one sentence on stderr, or one JSON object there."""
    refused = await cli("task", "nowhere")
    assert (1, "") == (refused.code, refused.out)
    assert "lensmesh: no task 'nowhere' in this namespace (not_found)\n" == refused.err
    assert 1 == (await cli("search", "x", LENSMESH_NAMESPACE="nobody-s")).code
    assert 1 == (await cli("search", "x", LENSMESH_API_KEY="lm_unknown")).code


@pytest.mark.parametrize(
    "wrong",
    [
        ("searching",),
        ("search",),
        ("search", "x", "--image", "y"),
        ("search", "--image", "/nowhere.jpg"),
        ("search", "x", "--index", "smell"),
        ("index",),
        ("index", "http://a/b", "--metadata", "[1]"),
        ("task", "x", "--watch", "--cancel"),
        ("matches", "--cursor", "1"),
        ("matches", "--follow", "--collection", "c"),
    ],
)
def test_wrong_usage_is_exit_code_2(wrong: tuple[str, ...]) -> None:
    """Commands and arguments that there are not, or that exclude each other, with one sentence on stderr."""
    # No command comes as far as asking the mesh.
    ended = CliRunner().invoke(lensmesh, wrong, env={"LENSMESH_URL": "http://127.0.0.1:1", "LENSMESH_API_KEY": "key"})
    assert (2, "") == (ended.exit_code, ended.stdout)
    assert "Error: " in ended.stderr


async def test_nobody_there_is_exit_code_3(mesh: Mesh, tmp_path: Path) -> None:
    """No mesh on this machine, or none at the given address."""
    nothing = await Cli({"LENSMESH_DATA_DIR": str(tmp_path)})("search", "x")
    assert 3 == nothing.code
    assert "./lensmesh up" in nothing.err
    away = Cli({"LENSMESH_URL": "http://127.0.0.1:1", "LENSMESH_API_KEY": "key"})
    assert 3 == (await away("task", "x")).code


async def test_the_local_key_stays_local(cli: Cli) -> None:
    """The development key of this machine's mesh is not sent to another address."""
    refused = await cli("search", "x", LENSMESH_URL="http://127.0.0.1:1")
    assert 3 == refused.code
    assert "no key for http://127.0.0.1:1" in refused.err


async def test_settings_come_from_the_environment(mesh: Mesh, room: Api, tmp_path: Path) -> None:
    """LENSMESH_URL, LENSMESH_API_KEY and LENSMESH_NAMESPACE are enough."""
    settings = {"LENSMESH_URL": mesh.rest_url, "LENSMESH_API_KEY": mesh.api_key, "LENSMESH_NAMESPACE": NAMESPACE}
    listed = await Cli(settings | {"LENSMESH_DATA_DIR": str(tmp_path)})("query", "list", "--json")
    assert 0 == listed.code, listed.err


async def test_keys_come_and_go(cli: Cli, mesh: Mesh) -> None:
    """A key that is made works, until it is rotated or removed; listings never show it."""
    who = "cli@example.org"
    made = await cli("keys", "create", who, "--name", "one", "--permission", "read", "--json")
    assert 0 == made.code, made.err
    key = made.document["key"]
    assert 0 == (await cli("query", "list", "--json", LENSMESH_API_KEY=key)).code
    listed = await cli("keys", "list", who, "--json")
    assert ["one"] == [each["name"] for each in listed.document["results"]]
    assert key not in listed.out
    assert "cli@example.org" in (await cli("keys", "list")).out
    rotated = await cli("keys", "rotate", who, "one")
    assert 1 == (await cli("query", "list", LENSMESH_API_KEY=key)).code
    assert 0 == (await cli("query", "list", LENSMESH_API_KEY=rotated.out.strip())).code
    assert 0 == (await cli("keys", "rm", who, "one")).code
    assert 1 == (await cli("query", "list", LENSMESH_API_KEY=rotated.out.strip())).code
