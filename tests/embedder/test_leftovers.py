"""Images of deleted assets are removed when nobody has them any more, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from runner.mesh import Mesh
from services.mesh.blobs import NatsBlobStore
from services.mesh.bus.topology import BusSettings, connect
from services.mesh.errors import NotFound
from services.mesh.tenancy import Tenant
from tests.conftest import Api, PhotoHost, api_of, mesh_config

WAIT_S = 20


@pytest.fixture(scope="module")
async def tidy(tmp_path_factory: pytest.TempPathFactory, photos: PhotoHost) -> AsyncIterator[Mesh]:
    """A mesh that looks for leftover images all the time."""
    directory = tmp_path_factory.mktemp("tidy")
    config = mesh_config(directory / "data", photos)
    config.settings.update({"LENSMESH_LEFTOVERS_WAIT_S": "0.5", "LENSMESH_LEFTOVERS_LOOK_S": "0.2"})
    with (directory / "log").open("w") as log:
        mesh = Mesh(config, lambda name, line: print(name, line, file=log, flush=True))
        await mesh.start()
        yield mesh
        await mesh.stop()


async def test_images_go_with_their_last_owner(tidy: Mesh, photos: PhotoHost) -> None:
    """The image of two assets stays when one of them is deleted, and goes with the other."""
    client: Api = api_of(tidy)
    bus = await connect(tidy.endpoints["nats_url"], "test", stream_replicas=1, settings=BusSettings())
    blobs = await NatsBlobStore.open(bus)
    try:
        bodies = [{"url": photos.picture_url(990_001), "collection_id": each} for each in ("a", "b")]
        first, second = [(await client.run(body))["asset_id"] for body in bodies]
        asset = (await client.http.get(f"/assets/{first}")).json()
        collection = (await client.http.get(f"/collections/{asset['collection_id']}")).json()
        tenant = Tenant(collection["namespace_id"])
        key = tenant.image(asset["unique_hash"])
        assert await blobs.exists(key)
        await client.http.delete(f"/assets/{first}")
        # Another that is nobody's shows that leftovers were looked for meanwhile.
        probe = (await client.run({"url": photos.picture_url(990_002), "collection_id": "a"}))["asset_id"]
        probed = tenant.image((await client.http.get(f"/assets/{probe}")).json()["unique_hash"])
        await client.http.delete(f"/assets/{probe}")
        await gone(blobs, probed)
        assert await blobs.exists(key)
        await client.http.delete(f"/assets/{second}")
        await gone(blobs, key)
        with pytest.raises(NotFound):
            await blobs.get(key)
    finally:
        await bus.close()
        await client.http.aclose()
        await client.channel.close()


async def gone(blobs: NatsBlobStore, key: str) -> None:
    """Wait until a blob is not there any more."""
    async with asyncio.timeout(WAIT_S):
        while await blobs.exists(key):
            await asyncio.sleep(0.05)
