"""Our client of the gRPC door, blocking and asynchronous, against the running mesh."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from lensmesh.v1 import common_pb2, feature_pb2, index_pb2, namespace_pb2, percolator_pb2, task_pb2

from lensmesh_client import AsyncGrpcClient, GrpcClient, Retries, errors
from runner.mesh import Mesh
from tests.clients.conftest import NAMESPACE
from tests.conftest import Api, PhotoHost

QUERY = feature_pb2.SearchQuery(
    vector_index=common_pb2.VECTOR_INDEX_KEYWORD, type=feature_pb2.QUERY_TYPE_TEXT, value="cup"
)


def request(url: str, collection: str) -> index_pb2.IndexImageRequest:
    """An image whose keywords the query finds."""
    made = index_pb2.IndexImageRequest(url=url, collection_id=collection, percolate=index_pb2.Percolate())
    made.feature_extractors.embed.add(
        type=index_pb2.EMBED_TYPE_TEXT, vector_index=common_pb2.VECTOR_INDEX_KEYWORD, value="a cup"
    )
    return made


@pytest.fixture(scope="session")
async def rpc(mesh: Mesh, room: Api) -> AsyncIterator[AsyncGrpcClient]:
    """The asynchronous client, in this suite's namespace."""
    async with AsyncGrpcClient(mesh.grpc_address, mesh.api_key, namespace=NAMESPACE) as client:
        yield client


async def test_it_indexes_waits_and_follows(rpc: AsyncGrpcClient, photos: PhotoHost) -> None:
    """A task is waited for by its events, and its match followed from the start and from a cursor."""
    wanted = percolator_pb2.CreateStoredQueryRequest(collection_ids=["rpc"], queries=[QUERY], min_score=0.1)
    stored = await rpc.percolators.CreateStoredQuery(wanted)
    accepted = await rpc.index.IndexImage(request(photos.picture_url(7_000_020), "rpc"))
    task = await rpc.wait(accepted.task_id, timeout_s=60)
    assert task_pb2.TASK_STATUS_DONE == task.status
    async for match in rpc.follow_matches(percolator_id=stored.percolator_id):
        assert task.asset_id == match.match.asset_id
        break


async def test_a_refusal_says_what_is_wrong(rpc: AsyncGrpcClient) -> None:
    """Each type of error is an exception of its own, in calls and in streams, with the fields that break a rule."""
    with pytest.raises(errors.ValidationFailed) as refused:
        await rpc.index.IndexImage(index_pb2.IndexImageRequest(url="ftp://nowhere"))
    assert {"url", "collection_id"} == {each.field for each in refused.value.violations}
    with pytest.raises(errors.NotFound):
        await rpc.tasks.GetTask(task_pb2.GetTaskRequest(task_id="nowhere"))
    with pytest.raises(errors.NotFound):
        await rpc.wait("nowhere", timeout_s=10)


async def test_a_calls_own_metadata_comes_first(rpc: AsyncGrpcClient) -> None:
    """Another namespace for one call is given by that call's metadata."""
    listed = await rpc.collections.ListCollections(
        namespace_pb2.ListCollectionsRequest(), metadata=(("x-namespace", "default"),)
    )
    assert "rpc" not in [each.collection_name for each in listed.results]


async def test_blocking_calls_do_the_same(mesh: Mesh, room: Api, photos: PhotoHost) -> None:
    """The blocking client indexes, waits, follows, searches and is refused like the other."""

    def work(client: GrpcClient) -> None:
        wanted = percolator_pb2.CreateStoredQueryRequest(collection_ids=["rpc-b"], queries=[QUERY], min_score=0.1)
        stored = client.percolators.CreateStoredQuery(wanted)
        accepted = client.index.IndexImage(request(photos.picture_url(7_000_021), "rpc-b"))
        task = client.wait(accepted.task_id, timeout_s=60)
        match = next(client.follow_matches(percolator_id=stored.percolator_id))
        assert task.asset_id == match.match.asset_id
        search = feature_pb2.SearchFeaturesRequest(collection_ids=["rpc-b"], queries=[QUERY])
        assert [task.asset_id] == [each.asset_id for each in client.features.SearchFeatures(search).results]
        with pytest.raises(errors.NotFound):
            client.tasks.GetTask(task_pb2.GetTaskRequest(task_id="nowhere"))
        with pytest.raises(errors.NotFound):
            client.wait("nowhere", timeout_s=10)

    with GrpcClient(mesh.grpc_address, mesh.api_key, namespace=NAMESPACE) as client:
        await asyncio.to_thread(work, client)


async def test_nobody_there_is_unreachable() -> None:
    """An address that nobody listens at raises Unreachable after the attempts that were allowed."""
    async with AsyncGrpcClient("127.0.0.1:1", "key", retries=Retries(attempts_max=2, first_s=0.001)) as client:
        with pytest.raises(errors.Unreachable):
            await client.tasks.GetTask(task_pb2.GetTaskRequest(task_id="x"))
