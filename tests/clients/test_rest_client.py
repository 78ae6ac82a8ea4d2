"""Our client of the REST door, blocking and asynchronous, against the running mesh."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from lensmesh.rest import outputs

from lensmesh_client import AsyncRestClient, RestClient, Retries, errors
from runner.mesh import Mesh
from tests.clients.conftest import NAMESPACE
from tests.clients.shapes import misfits
from tests.conftest import Api, PhotoHost, picture

QUERY: Any = {"vector_index": "keyword", "type": "text", "value": "cup"}


@pytest.fixture(scope="session")
async def rest(mesh: Mesh, room: Api) -> AsyncIterator[AsyncRestClient]:
    """The asynchronous client, in this suite's namespace."""
    async with AsyncRestClient(mesh.rest_url, mesh.api_key, namespace=NAMESPACE) as client:
        yield client


@pytest.fixture(scope="session")
def blocking(mesh: Mesh, room: Api) -> Iterator[RestClient]:
    """The blocking client; called in threads, as the photo host lives in this one."""
    with RestClient(mesh.rest_url, mesh.api_key, namespace=NAMESPACE) as client:
        yield client


def fits(value: Any, kind: Any) -> None:
    """Assert that an answer is what its type says."""
    assert [] == list(misfits(value, kind))


async def test_answers_are_what_their_types_say(rest: AsyncRestClient, photos: PhotoHost) -> None:
    """Every key of every answer is there and of its type, from an image's indexing to its deletion."""
    collection = await rest.collections.create_collection(collection_name="rest", metadata={"a": 1})
    fits(collection, outputs.Collection)
    stored = await rest.percolators.create_stored_query(collection_ids=["rest"], queries=[QUERY], min_score=0.1)
    accepted = await rest.index.index_image(
        url=photos.picture_url(7_000_010),
        collection_id="rest",
        percolate={},
        feature_extractors={
            "read": {},
            "describe": {},
            "detect": {"faces": {}, "logos": {}},
            "embed": [{"type": "text", "vector_index": "keyword", "value": "a red cup"}],
        },
    )
    fits(accepted, outputs.IndexImageResponse)
    task = await rest.wait(accepted["task_id"], timeout_s=60)
    fits(task, outputs.Task)
    assert "DONE" == task["status"]
    assert [stored["percolator_id"]] == [match["percolator_id"] for match in task["matches"]]
    asset_id = task["asset_id"]
    assert asset_id is not None
    fits(await rest.assets.get_asset(asset_id=asset_id, return_url=True), outputs.Asset)
    listed = await rest.features.list_features(collection_ids=["rest"], include_vectors=True)
    fits(listed, outputs.ListFeaturesResponse)
    found = await rest.features.search_features(queries=[QUERY], collection_ids=["rest"])
    fits(found, outputs.SearchFeaturesResponse)
    assert [asset_id] == [each["asset_id"] for each in found["results"]]
    fits(await rest.percolators.list_stored_queries(page_size=5), outputs.ListStoredQueriesResponse)
    fits(await rest.matches.list_matches(collection_ids=["rest"]), outputs.ListMatchesResponse)
    fits(await rest.namespaces.list_indexes(), outputs.ListIndexesResponse)
    fits(await rest.namespaces.list_namespaces(), list[outputs.Namespace])
    fits(await rest.assets.delete_asset(asset_id=asset_id), outputs.DeleteAssetResponse)


async def test_files_texts_and_batches(rest: AsyncRestClient, photos: PhotoHost, tmp_path: Path) -> None:
    """A file goes up by its bytes and by its path; texts and batches are accepted; the tasks are listed."""
    file = tmp_path / "picture.png"
    file.write_bytes(picture(7_000_030, format="PNG"))
    for source in (picture(7_000_031), file):
        accepted = await rest.index.index_upload(collection_id="files", metadata={"by": "client"}, file=source)
        task = await rest.wait(accepted["task_id"], timeout_s=60)
        assert ("DONE", "file") == (task["status"], task["inputs"][0]["type"])
    embed: Any = [{"type": "text", "vector_index": "text", "value": "a cup"}]
    text = await rest.index.index_text(collection_id="files", feature_extractors={"embed": embed})
    assert "DONE" == (await rest.wait(text["task_id"], timeout_s=60))["status"]
    items: Any = [{"url": photos.picture_url(7_000_032), "collection_id": "files"}, {"url": "ftp://x"}]
    batch = await rest.index.index_batch(items=items)
    fits(batch, outputs.IndexBatchResponse)
    assert [True, False] == [bool(each["task_id"]) for each in batch["results"]]
    listed = await rest.tasks.list_tasks(collection_id="files", page_size=10)
    fits(listed, outputs.ListTasksResponse)
    assert 4 == listed["pagination"]["total"]
    stored = await rest.files.upload_file(content=picture(7_000_033))
    fits(stored, outputs.UploadFileResponse)


async def test_keys_and_usage(rest: AsyncRestClient) -> None:
    """A key is made, listed, changed, rotated and deleted; its user, the organization and the usage are read."""
    email = "rest-client@example.org"
    fits(await rest.keys.create_key(email=email, permissions=["read"]), outputs.CreateKeyResponse)
    fits(await rest.keys.list_keys(email=email), outputs.ListKeysResponse)
    changed = await rest.keys.update_key(email=email, key_name="default", disabled=True)
    fits(changed, outputs.ApiKey)
    assert changed["disabled"] is True
    fits(await rest.keys.rotate_key(email=email, key_name="default"), outputs.ApiKey)
    fits(await rest.organizations.get_user(email=email), outputs.User)
    fits(await rest.organizations.get_organization(), outputs.Organization)
    fits(await rest.organizations.get_usage(), outputs.Usage)
    fits(await rest.keys.delete_key(email=email, key_name="default"), outputs.DeleteKeyResponse)


async def test_what_is_sent_twice_is_done_once(mesh: Mesh, room: Api, photos: PhotoHost) -> None:
    """A write whose answer was lost is sent again, and the mesh gives the first answer instead of a second task."""
    lost = _LosesFirstAnswer()
    async with AsyncRestClient(
        mesh.rest_url, mesh.api_key, namespace=NAMESPACE, retries=Retries(first_s=0.01)
    ) as client:
        client._http._transport = lost
        accepted = await client.index.index_image(url=photos.picture_url(7_000_034), collection_id="once")
    assert [accepted["task_id"]] * 2 == lost.tasks


class _LosesFirstAnswer(httpx.AsyncHTTPTransport):
    """Carries every request out, and breaks before the first answer arrives."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        await response.aread()
        self.tasks.append(response.json()["task_id"])
        if len(self.tasks) == 1:
            raise httpx.ReadError("lost", request=request)
        return response


async def test_a_refusal_says_what_is_wrong(rest: AsyncRestClient) -> None:
    """Each type of error is an exception of its own, with the fields that break a rule."""
    with pytest.raises(errors.ValidationFailed) as refused:
        await rest.index.index_image(url="ftp://nowhere", collection_id="")
    assert {"url", "collection_id"} == {each.field for each in refused.value.violations}
    assert ("validation_error", False) == (refused.value.type, refused.value.retryable)
    with pytest.raises(errors.NotFound, match="nowhere"):
        await rest.tasks.get_task(task_id="nowhere")
    with pytest.raises(errors.Conflict):
        await rest.namespaces.create_namespace(namespace_name=NAMESPACE, vector_indexes=["image"])


async def test_names_with_slashes_stay_one_name(rest: AsyncRestClient) -> None:
    """What stands in a path is quoted, so that it asks for nothing else."""
    with pytest.raises(errors.NotFound):
        await rest.collections.get_collection(collection="../namespaces?x=1#y")


async def test_an_unknown_key_is_refused(mesh: Mesh) -> None:
    """A key that the mesh does not know raises, and is not tried again."""
    async with AsyncRestClient(mesh.rest_url, "lm_unknown") as stranger:
        with pytest.raises(errors.Unauthenticated):
            await stranger.collections.list_collections()


async def test_a_task_of_nobody_is_not_waited_for(rest: AsyncRestClient) -> None:
    """Waiting for an unknown task raises at once."""
    with pytest.raises(errors.NotFound):
        await rest.wait("nowhere")


async def test_blocking_calls_do_the_same(blocking: RestClient, photos: PhotoHost) -> None:
    """The blocking client indexes, waits, searches and is refused like the other."""

    def work() -> tuple[outputs.Task, outputs.SearchFeaturesResponse]:
        accepted = blocking.index.index_image(
            url=photos.picture_url(7_000_011),
            collection_id="blocking",
            feature_extractors={"embed": [{"type": "text", "vector_index": "keyword", "value": "a cup"}]},
        )
        task = blocking.wait(accepted["task_id"], timeout_s=60)
        with pytest.raises(errors.NotFound):
            blocking.tasks.get_task(task_id="nowhere")
        return task, blocking.features.search_features(queries=[QUERY], collection_ids=["blocking"])

    task, found = await asyncio.to_thread(work)
    fits(task, outputs.Task)
    assert [task["asset_id"]] == [each["asset_id"] for each in found["results"]]


async def test_matches_are_followed_from_a_cursor(rest: AsyncRestClient, photos: PhotoHost) -> None:
    """Who follows matches gets each once, and from its cursor on those that came after."""
    stored = await rest.percolators.create_stored_query(collection_ids=["followed"], queries=[QUERY], min_score=0.1)
    embed: Any = [{"type": "text", "vector_index": "keyword", "value": "a cup"}]
    tasks = []
    for number in (7_000_012, 7_000_013):
        accepted = await rest.index.index_image(
            url=photos.picture_url(number), collection_id="followed", percolate={}, feature_extractors={"embed": embed}
        )
        tasks.append(accepted["task_id"])
        await rest.wait(accepted["task_id"], timeout_s=60)
    seen = []
    async for match in rest.follow_matches(percolator_id=stored["percolator_id"]):
        fits(match, outputs.WatchMatchesResponse)
        seen.append(match)
        if len(seen) == 2:
            break
    assert tasks == [each["match"]["task_id"] for each in seen]
    async for match in rest.follow_matches(cursor=seen[0]["cursor"], percolator_id=stored["percolator_id"]):
        assert seen[1] == match
        break
