"""Searching for assets that look the same: exact, sorted, and scoped, at both doors."""

from __future__ import annotations

import asyncio
import io
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import numpy
import pytest
from lensmesh.v1 import asset_pb2
from PIL import Image

from tests.api.doors import rest_refusal, rpc, rpc_refused
from tests.conftest import Api, PhotoHost

DEMO = Path(__file__).parents[2] / "demo" / "photos"
NOTHING = {"detect": {}}
numbers = count(1)


def noise(seed: int) -> Image.Image:
    """A picture that looks like no other."""
    values = numpy.random.default_rng(seed).integers(0, 256, (8, 8)).astype(numpy.uint8)
    return Image.fromarray(values).resize((64, 64), Image.Resampling.BICUBIC)


def varied(seed: int, number: int) -> Image.Image:
    """A picture that grows less like `noise(seed)` with its number."""
    return Image.blend(noise(seed), noise(seed + 1_000 + number), min(number * 0.06, 1))


def served(photos: PhotoHost, image: Image.Image, **options: object) -> str:
    """The URL of a JPEG of the picture; equal pictures are equal in every pixel, but no two files are."""
    number, content = next(numbers), io.BytesIO()
    image.save(content, "JPEG", comment=str(number), **options)
    return photos.put(f"near/{number}.jpg", content.getvalue())


async def index(client: Api, collection: str, photos: PhotoHost, image: Image.Image, **options: object) -> str:
    """Index a picture, in a file of its own, without any model; returns the asset's id."""
    url = served(photos, image, **options)
    task = await client.run({"url": url, "collection_id": collection, "feature_extractors": NOTHING})
    assert "DONE" == task["status"], task
    return str(task["asset_id"])


async def near(client: Api, asset_id: str, **body: object) -> list[tuple[str, int]]:
    """Ids and distances that REST answers with."""
    response = await client.http.post(f"/assets/{asset_id}/near-duplicates", json=body)
    assert 200 == response.status_code, response.text
    assert {"results"} == set(response.json())
    return [(each["asset"]["asset_id"], each["distance"]) for each in response.json()["results"]]


async def hash_of(client: Api, asset_id: str) -> int:
    """An asset's hash as a number."""
    return int((await client.http.get(f"/assets/{asset_id}")).json()["perceptual_hash"], 16)


async def test_other_files_of_a_picture_are_found(space: Api, collection: str, photos: PhotoHost) -> None:
    """A smaller and a badly compressed copy of a photo are near it; other photos are not."""
    china, cat = (Image.open(DEMO / f"{name}.jpg") for name in ("china", "cat"))
    original = await index(space, collection, photos, china, quality=90)
    copies = {
        await index(space, collection, photos, china.resize((320, 214)), quality=80),
        await index(space, collection, photos, china, quality=30),
    }
    await index(space, collection, photos, cat)
    found = await near(space, original, collection_ids=[collection])
    assert copies == {asset_id for asset_id, _ in found}
    assert all(0 <= distance <= 10 for _, distance in found)


async def test_the_hash_is_shown_at_both_doors(space: Api, collection: str, photos: PhotoHost) -> None:
    """An asset shows its hash, equal for equal pictures, by REST and by gRPC."""
    one, other = [await index(space, collection, photos, noise(1)) for _ in range(2)]
    shown = (await space.http.get(f"/assets/{one}")).json()["perceptual_hash"]
    assert f"{int(shown, 16):016x}" == shown
    assert await hash_of(space, one) == await hash_of(space, other)
    assert shown == (await rpc(space, "GetAsset", asset_pb2.GetAssetRequest(asset_id=one))).asset.perceptual_hash


async def test_the_search_is_exact_at_both_doors(space: Api, collection: str, photos: PhotoHost) -> None:
    """Every asset within the distance is found, with the number of bits that differ, nearest first, then by id."""
    pictures = [varied(50, number) for number in range(24)]
    ids = await asyncio.gather(*(index(space, collection, photos, each) for each in pictures))
    hashes = dict(zip(ids, await asyncio.gather(*(hash_of(space, each) for each in ids)), strict=True))
    by_distance = sorted(((hashes[ids[0]] ^ hashes[each]).bit_count(), each) for each in ids[1:])
    assert by_distance[0][0] <= 10 < by_distance[-1][0], "the pictures don't test the threshold"
    for most in (0, 7, 10, 20, 32):
        expected = [(each, distance) for distance, each in by_distance if distance <= most]
        assert expected == await near(space, ids[0], collection_ids=[collection], max_distance=most, limit=100)
        request = asset_pb2.FindNearDuplicatesRequest(
            asset_id=ids[0], collection_ids=[collection], max_distance=most, limit=100
        )
        answer = await rpc(space, "FindNearDuplicates", request)
        assert expected == [(each.asset.asset_id, each.distance) for each in answer.results]


async def test_the_defaults_are_10_bits_and_20_assets(space: Api, collection: str, photos: PhotoHost) -> None:
    """A request that says nothing finds what is at most 10 bits away, 20 at most."""
    pictures = [varied(90, number) for number in range(12)] + [noise(90)] * 20
    ids = await asyncio.gather(*(index(space, collection, photos, each) for each in pictures))
    within = await near(space, ids[0], collection_ids=[collection], max_distance=10, limit=100)
    beyond = await near(space, ids[0], collection_ids=[collection], max_distance=32, limit=100)
    assert 20 < len(within) < len(beyond)
    assert within[:20] == await near(space, ids[0], collection_ids=[collection])


async def test_equally_near_assets_come_by_id(space: Api, collection: str, photos: PhotoHost) -> None:
    """Of many assets at one distance those with the smallest ids are shown, whatever the limit."""
    ids = await asyncio.gather(
        *(index(space, collection, photos, Image.new("L", (40 + each, 40), 128)) for each in range(12))
    )
    others = [(each, 0) for each in sorted(ids[1:])]
    for limit in (1, 3, 10, 11, 12):
        assert others[:limit] == await near(space, ids[0], collection_ids=[collection], limit=limit)


async def test_collections_are_kept_apart_when_asked_to(space: Api, collection: str, photos: PhotoHost) -> None:
    """With collections only those are searched, by name or id; without, all of the namespace."""
    picture = noise(numpy.random.default_rng().integers(10**9))
    here = await index(space, collection, photos, picture)
    there = await index(space, f"{collection}-there", photos, picture)
    there_id = (await space.http.get(f"/assets/{there}")).json()["collection_id"]
    assert [] == await near(space, here, collection_ids=[collection])
    assert [(there, 0)] == await near(space, here, collection_ids=[f"{collection}-there"])
    assert [(there, 0)] == await near(space, here, collections=[collection, there_id])
    assert [(there, 0)] == await near(space, here, max_distance=2)
    assert [(here, 0)] == await near(space, there, max_distance=2)


async def test_features_are_no_assets(space: Api, collection: str, photos: PhotoHost) -> None:
    """Only assets are found: each once, however many features it has, and with the whole asset in the answer."""
    picture = noise(3)
    one = await index(space, collection, photos, picture)
    other = await index(space, collection, photos, picture)
    body: dict[str, Any] = {
        "url": served(photos, picture),
        "collection_id": collection,
        "asset_update": {"asset_id": other, "mode": "append"},
        "feature_extractors": {"read": {}},
    }
    assert "DONE" == (await space.run(body))["status"]
    answer = await space.http.post(
        f"/assets/{one}/near-duplicates", json={"collection_ids": [collection], "max_distance": 32, "limit": 100}
    )
    asset = (await space.http.get(f"/assets/{other}")).json()
    assert [{"asset": asset, "distance": 0}] == answer.json()["results"]


async def test_an_updated_asset_looks_like_its_new_picture(space: Api, collection: str, photos: PhotoHost) -> None:
    """After an update with another picture, the asset is near that picture and no more near the old one."""
    changed, like_old = [await index(space, collection, photos, noise(11)) for _ in range(2)]
    like_new = await index(space, collection, photos, noise(12))
    assert [(like_old, 0)] == await near(space, changed, collection_ids=[collection])
    update = {"asset_id": changed, "mode": "replace"}
    body = {
        "url": served(photos, noise(12)),
        "collection_id": collection,
        "asset_update": update,
        "feature_extractors": NOTHING,
    }
    assert "DONE" == (await space.run(body))["status"]
    assert [(like_new, 0)] == await near(space, changed, collection_ids=[collection])
    assert [] == await near(space, like_old, collection_ids=[collection])


@pytest.mark.parametrize("asset_id", ["never-made", "a.b", "a b*"])
async def test_an_unknown_asset_is_not_found(space: Api, asset_id: str) -> None:
    """An asset that does not exist is a 404, NOT_FOUND at the gRPC door."""
    refusal = rest_refusal(await space.http.post(f"/assets/{asset_id}/near-duplicates", json={}))
    assert (404, "not_found") == (refusal.code, refusal.type)
    rpc_refusal = await rpc_refused(space, "FindNearDuplicates", asset_pb2.FindNearDuplicatesRequest(asset_id=asset_id))
    assert (grpc.StatusCode.NOT_FOUND, refusal.message) == (rpc_refusal.code, rpc_refusal.message)


async def test_an_unknown_collection_is_not_found(space: Api, collection: str, photos: PhotoHost) -> None:
    """A collection that does not exist is a 404 that names the field."""
    asset_id = await index(space, collection, photos, noise(2))
    refusal = rest_refusal(
        await space.http.post(f"/assets/{asset_id}/near-duplicates", json={"collection_ids": ["never-made"]})
    )
    assert (404, True) == (refusal.code, "collection_ids.0" in refusal.message)
