"""A namespace's own logos: kept at both doors, found on the next image, gone after they are deleted.

In the trivial set a picture shows a mark where both are the same bytes, and no other.
"""

from __future__ import annotations

import base64
import io
import time
from typing import Any

import grpc
import pytest
from lensmesh.v1 import logo_pb2, vision_pb2
from PIL import Image

from runner.mesh import Mesh
from services.mesh.bus import topology
from services.mesh.bus.topology import Bus, BusSettings
from services.mesh.config import load
from tests.api.doors import rest_refusal, rpc, rpc_refused
from tests.conftest import Api, PhotoHost, api_of, picture

# As the test mesh is set.
LOGOS_MAX = 4


def encoded(content: bytes) -> str:
    """Content as base64."""
    return base64.b64encode(content).decode()


async def create(client: Api, name: str, number: int) -> dict[str, Any]:
    """Store the logo of that number."""
    made = await client.http.post("/logos", json={"name": name, "image": encoded(picture(number))})
    assert 200 == made.status_code, made.text
    return dict(made.json())


async def found(client: Api, photos: PhotoHost, number: int, **blocks: Any) -> dict[str, Any]:
    """The feature of an image that is the logo of that number."""
    extractors = {"detect": {"logos": {}}} | blocks
    body = {"url": photos.picture_url(number), "collection_id": "c", "feature_extractors": extractors}
    task = await client.run(body)
    assert "DONE" == task["status"], task
    features = (await client.http.get(f"/assets/{task['asset_id']}/features")).json()["features"]["image"]
    return dict(features[0])


async def names(client: Api, photos: PhotoHost, number: int) -> list[tuple[str, str | None]]:
    """Name and id of what is found on an image that is the logo of that number."""
    feature = await found(client, photos, number)
    return [(each["name"], each["logo_id"]) for each in feature["detect"]["logos"]]


async def test_a_logo_is_kept_until_it_is_deleted(tenant: Api, number: int) -> None:
    """Both doors show the same logo, under the id that its creation gave, until it is deleted."""
    made = await create(tenant, "Acme", number)
    assert {"logo_id", "name", "file_id", "created_at"} == set(made)
    assert made == (await tenant.http.get(f"/logos/{made['logo_id']}")).json()
    shown = (await rpc(tenant, "GetLogo", logo_pb2.GetLogoRequest(logo_id=made["logo_id"]))).logo
    assert (made["logo_id"], "Acme", made["file_id"]) == (shown.logo_id, shown.name, shown.file_id)
    assert [made] == (await tenant.http.get("/logos")).json()["results"]
    deleted = (await tenant.http.delete(f"/logos/{made['logo_id']}")).json()
    assert {"logo_id": made["logo_id"], "deleted": True} == deleted
    assert 404 == rest_refusal(await tenant.http.get(f"/logos/{made['logo_id']}")).code
    again = await rpc_refused(tenant, "DeleteLogo", logo_pb2.DeleteLogoRequest(logo_id=made["logo_id"]))
    assert grpc.StatusCode.NOT_FOUND == again.code
    assert [] == (await tenant.http.get("/logos")).json()["results"]


async def test_every_source_gives_the_same_logo(tenant: Api, photos: PhotoHost, number: int) -> None:
    """The same image and name is one logo, by whichever door and source it comes; another name makes another."""
    content = picture(number)
    first = await create(tenant, "Acme", number)
    file_id = (await tenant.http.post("/files", content=content)).json()["file_id"]
    sources = (
        {"image": f"data:image/jpeg;base64,{encoded(content)}"},
        {"url": photos.picture_url(number)},
        {"file_id": file_id},
    )
    for source in sources:
        assert first == (await tenant.http.post("/logos", json={"name": "Acme", **source})).json()
        answer = await rpc(tenant, "CreateLogo", logo_pb2.CreateLogoRequest(name="Acme", **source))
        assert first["logo_id"] == answer.logo.logo_id
    assert first["file_id"] == file_id
    other = await create(tenant, "Acme Two", number)
    assert first["logo_id"] != other["logo_id"]
    assert 2 == (await tenant.http.get("/logos")).json()["pagination"]["total"]


async def test_a_listing_has_pages_oldest_first(tenant: Api, number: int) -> None:
    """Pages follow one another in the order of creation, at both doors."""
    made = [(await create(tenant, "Acme", number + each))["logo_id"] for each in range(3)]
    pages = [(await tenant.http.get(f"/logos?page={page}&page_size=2")).json() for page in (1, 2)]
    assert made == [each["logo_id"] for page in pages for each in page["results"]]
    assert (3, 2, None) == tuple(pages[1]["pagination"][key] for key in ("total", "total_pages", "next_page"))
    answer = await rpc(tenant, "ListLogos", logo_pb2.ListLogosRequest(page=2, page_size=2))
    assert made[2:] == [each.logo_id for each in answer.results]


async def test_a_logo_is_found_on_the_next_image_and_not_after_its_end(
    tenant: Api, photos: PhotoHost, number: int
) -> None:
    """An image is matched against the logos that are there when it is indexed, and shows no other."""
    assert [] == await names(tenant, photos, number)
    made = await create(tenant, "Acme", number)
    assert [("Acme", made["logo_id"])] == await names(tenant, photos, number)
    assert [] == await names(tenant, photos, number + 1)
    assert 200 == (await tenant.http.delete(f"/logos/{made['logo_id']}")).status_code
    assert [] == await names(tenant, photos, number)
    again = await create(tenant, "Acme", number)
    assert made["logo_id"] == again["logo_id"]
    assert [("Acme", made["logo_id"])] == await names(tenant, photos, number)


async def test_features_are_not_copied_when_logos_changed(tenant: Api, photos: PhotoHost, number: int) -> None:
    """copy_features looks again for logos where one was uploaded or deleted since, and copies where none was."""
    old = await create(tenant, "Old", number + 1)
    body = {
        "url": photos.picture_url(number),
        "collection_id": "c",
        "on_duplicate": "copy_features",
        "feature_extractors": {"detect": {"logos": {}}},
    }

    async def seen() -> tuple[list[str], bool]:
        """The names that are found, and whether they were copied."""
        task = await tenant.run(body)
        features = (await tenant.http.get(f"/assets/{task['asset_id']}/features")).json()["features"]["image"]
        note = task["steps"]["logos"]["note"] or ""
        return [each["name"] for each in features[0]["detect"]["logos"]], note.startswith("copied")

    assert ([], False) == await seen()
    assert ([], True) == await seen()
    await create(tenant, "Acme", number)
    assert (["Acme"], False) == await seen()
    body["url"] = photos.picture_url(number + 1)
    assert (["Old"], False) == await seen()
    assert (["Old"], True) == await seen()
    await tenant.http.delete(f"/logos/{old['logo_id']}")
    assert ([], False) == await seen()


async def test_structured_output_names_own_logos(tenant: Api, photos: PhotoHost, number: int) -> None:
    """What is asked for by a shape knows a namespace's own logos too."""
    await create(tenant, "Acme", number)
    feature = await found(tenant, photos, number, json_output={"response_shape": {"logos": ["str"]}})
    assert {"logos": ["Acme"]} == feature["json_output"]


async def test_a_namespace_has_a_limit(tenant: Api, number: int) -> None:
    """One logo more than the limit is refused until another is deleted; one that is there already is not."""
    made = [await create(tenant, "Acme", number + each) for each in range(LOGOS_MAX)]
    body = {"name": "Acme", "image": encoded(picture(number + LOGOS_MAX))}
    refusal = rest_refusal(await tenant.http.post("/logos", json=body))
    assert (429, "resource_exhausted", True) == (refusal.code, refusal.type, f"{LOGOS_MAX} logos" in refusal.message)
    again = await rpc_refused(tenant, "CreateLogo", logo_pb2.CreateLogoRequest(**body))
    assert (grpc.StatusCode.RESOURCE_EXHAUSTED, refusal.message) == (again.code, again.message)
    assert made[0] == await create(tenant, "Acme", number)
    await tenant.http.delete(f"/logos/{made[1]['logo_id']}")
    assert 200 == (await tenant.http.post("/logos", json=body)).status_code


def plain() -> bytes:
    """A PNG of one colour."""
    content = io.BytesIO()
    Image.new("RGB", (40, 30), "navy").save(content, "PNG")
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "kind", "says"),
    [
        (b"not an image", "unsupported_media_type", "looks like text"),
        (picture(1)[:200], "broken_image", "can't be decoded"),
        (plain(), "broken_image", "one colour"),
    ],
    ids=["text", "half an image", "one colour"],
)
async def test_an_image_without_a_mark_is_refused(space: Api, content: bytes, kind: str, says: str) -> None:
    """What can't be decoded or shows one colour only is refused at both doors, naming the field, and not kept."""
    body = {"name": "Nothing", "image": encoded(content)}
    refusal = rest_refusal(await space.http.post("/logos", json=body))
    assert (422, kind) == (refusal.code, refusal.type)
    assert refusal.message.startswith("image: ")
    assert says in refusal.message
    again = await rpc_refused(space, "CreateLogo", logo_pb2.CreateLogoRequest(**body))
    assert (grpc.StatusCode.INVALID_ARGUMENT, kind, refusal.message) == (again.code, again.type, again.message)
    assert "Nothing" not in (await space.http.get("/logos?page_size=100")).text


async def test_a_url_goes_through_the_guard(space: Api, photos: PhotoHost) -> None:
    """A private address and a page that is not there are refused, naming the field."""
    refusal = rest_refusal(await space.http.post("/logos", json={"name": "a", "url": "http://127.0.0.1:1/x.png"}))
    assert (422, "fetch_refused", True) == (refusal.code, refusal.type, refusal.message.startswith("url: "))
    refusal = rest_refusal(await space.http.post("/logos", json={"name": "a", "url": photos.url("nowhere")}))
    assert (422, "fetch_failed", True) == (refusal.code, refusal.type, refusal.message.startswith("url: "))


async def test_a_file_has_the_limit_of_all_files(space: Api) -> None:
    """An inline image of more than 32 MB is a 413."""
    refusal = rest_refusal(await space.http.post("/logos", json={"name": "a", "image": encoded(b"x" * 32_000_001)}))
    assert (413, "payload_too_large", True) == (refusal.code, refusal.type, "image: " in refusal.message)


async def test_a_key_that_reads_makes_and_deletes_none(mesh: Mesh, tenant: Api, api: Api, number: int) -> None:
    """Reading lists logos; making and deleting one needs the permission to write."""
    made = await create(tenant, "Acme", number)
    namespace = (await tenant.http.get("/namespaces")).json()[0]["namespace_id"]
    body = {"namespaces": [namespace], "permissions": ["read"]}
    key = (await api.http.post(f"/organizations/users/{namespace}@example.org/api-keys", json=body)).json()
    reader = api_of(mesh, key["api_key"])
    assert [made] == (await reader.http.get("/logos")).json()["results"]
    body = {"name": "Acme", "image": encoded(picture(number + 1))}
    assert 403 == rest_refusal(await reader.http.post("/logos", json=body)).code
    refused = await rpc_refused(reader, "DeleteLogo", logo_pb2.DeleteLogoRequest(logo_id=made["logo_id"]))
    assert grpc.StatusCode.PERMISSION_DENIED == refused.code
    await reader.http.aclose()
    await reader.channel.close()


async def test_a_restart_keeps_logos_and_makes_marks_of_another_version_anew(
    mesh: Mesh, tenant: Api, photos: PhotoHost, number: int
) -> None:
    """A mark of another version of the models is not compared; when vision starts again, it is made anew."""
    kept, old = await create(tenant, "Kept", number), await create(tenant, "Old", number + 1)
    bus: Bus = await topology.connect(mesh.endpoints["nats_url"], "test", stream_replicas=1, settings=load(BusSettings))
    namespace = (await tenant.http.get("/namespaces")).json()[0]["namespace_id"]
    bucket, key = await bus.bucket(topology.LOGOS), f"{namespace}.{old['logo_id']}"
    record = vision_pb2.LogoRecord.FromString((await bucket.get(key)).value or b"")
    record.role_version = "another"
    await bucket.put(key, record.SerializeToString())
    # Vision has seen that write when it has seen this later one.
    await create(tenant, "Later", number + 2)
    assert [] == await names(tenant, photos, number + 1)
    mesh.processes["vision"].kill()
    await mesh.wait_ready()
    assert [("Kept", kept["logo_id"])] == await names(tenant, photos, number)
    deadline = time.monotonic() + 30
    while not (seen := await names(tenant, photos, number + 1)):
        assert time.monotonic() < deadline, "the mark was not made anew"
    assert [("Old", old["logo_id"])] == seen
    assert old == (await tenant.http.get(f"/logos/{old['logo_id']}")).json()
    await bus.close()
