"""Matches of indexed assets are posted to webhooks; what a webhook must be, and what is shown of it."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web
from lensmesh.v1 import percolator_pb2

from runner.mesh import Mesh
from tests.api.doors import rest_refusal, rpc, rpc_refused
from tests.api.test_percolation import store, text, with_texts
from tests.conftest import Api, PhotoHost
from tests.webhook_receiver import SECRET, Call, until

PLAIN = SECRET.removeprefix("whsec_")


def receive(photos: PhotoHost, path: str, *statuses: int) -> list[Call]:
    """Receive webhooks under a path of the photo host: these statuses in turn, then 200; returns the calls."""
    calls: list[Call] = []
    answers = list(statuses)

    async def handler(request: web.Request) -> web.StreamResponse:
        calls.append(Call(request.path, dict(request.headers), await request.read(), 0.0))
        return web.Response(status=answers.pop(0) if answers else 200)

    photos.handlers[path] = handler
    return calls


async def shown(space: Api, percolator_id: str, **wanted: Any) -> dict[str, Any]:
    """The delivery of a stored query, once it has these values."""
    async with asyncio.timeout(20):
        while True:
            answer = await space.http.get(f"/percolators/queries/{percolator_id}")
            delivery = dict(answer.json()["delivery"])
            if all(delivery[name] == value for name, value in wanted.items()):
                return delivery
            await asyncio.sleep(0.02)


async def test_a_match_is_posted_as_the_api_shows_it(
    space: Api, collection: str, photos: PhotoHost, number: int
) -> None:
    """What arrives is signed and equals the match in the task; the stored query says that it was delivered."""
    path = f"hook/{number}"
    calls = receive(photos, path)
    delivery = {"webhook_url": photos.url(f"{path}?token=sesame"), "secret": SECRET, "cooldown_s": 0}
    percolator_id = await store(space, collection, text("one"), metadata={"owner": "a"}, delivery=delivery)
    task = await space.run(with_texts(photos, collection, number, "one"))
    await until(lambda: calls)
    body = calls[0].verified()
    assert (percolator_id, task["matches"]) == (body["percolator_id"], body["matches"])
    status = await shown(space, percolator_id, last_error="")
    assert {"webhook_url", "cooldown_s", "state", "dead_letters", "last_error", "delivered_at"} == set(status)
    assert (delivery["webhook_url"], 0, "active", 0) == tuple(
        status[name] for name in ("webhook_url", "cooldown_s", "state", "dead_letters")
    )
    listed = (await space.http.get("/percolators/queries?page_size=100&page=1")).json()
    assert {"active", None} >= {(each["delivery"] or {"state": None})["state"] for each in listed["results"]}
    asked = percolator_pb2.GetStoredQueryRequest(percolator_id=percolator_id)
    answer = await rpc(space, "GetStoredQuery", asked)
    assert percolator_pb2.DELIVERY_STATE_ACTIVE == answer.stored_query.delivery.state


REFUSED = [
    ("ftp://hook.test/x", "must be an http or https URL, not ftp"),
    ("http://user:sesame@hook.test/x", "must not hold a user name or password"),
    ("http://10.0.0.1/x", "leads to 10.0.0.1, which is refused (private network, RFC 1918)"),
    ("https://[::1]:8443/x", "leads to ::1, which is refused"),
    ("http://[::ffff:169.254.169.254]/", "169.254.169.254"),
    ("http://2130706433/x", "leads to 127.0.0.1, which is refused"),
    ("http://127.1/x", "leads to 127.0.0.1, which is refused"),
    ("http://127.0.0.1:1/x", "LENSMESH_FETCH_ALLOW=127.0.0.1:1 would open it"),
    ("http://hook.test/" + "x" * 2048, "2048"),
]


@pytest.mark.parametrize(("url", "why"), REFUSED, ids=[url[:40] for url, _ in REFUSED])
async def test_a_url_that_can_not_be_is_refused_at_once(space: Api, collection: str, url: str, why: str) -> None:
    """Schemes, credentials, lengths and addresses that the guard refuses are a 422 that names field and rule."""
    delivery = {"webhook_url": url, "secret": SECRET}
    body = {"collection_ids": [collection], "queries": [text("one")], "delivery": delivery}
    refusal = rest_refusal(await space.http.post("/percolators/queries", json=body))
    assert 422 == refusal.code
    assert why in refusal.fields["delivery.webhook_url"]
    assert "sesame" not in refusal.message
    request = percolator_pb2.CreateStoredQueryRequest(collection_ids=[collection])
    request.queries.add(vector_index=3, type=1, value="one")
    request.delivery.webhook_url, request.delivery.secret = url, SECRET
    refused = await rpc_refused(space, "CreateStoredQuery", request)
    assert grpc.StatusCode.INVALID_ARGUMENT == refused.code
    assert why in refused.fields["delivery.webhook_url"]


@pytest.mark.parametrize("secret", [None, "short", "x" * 257, "whsec_" + "!" * 24])
async def test_a_secret_must_sign(space: Api, collection: str, secret: str | None) -> None:
    """A secret is required, has 24 to 256 characters, and after whsec_ is base64."""
    delivery = {"webhook_url": "https://hook.test/x", "secret": secret}
    body = {"collection_ids": [collection], "queries": [text("one")], "delivery": delivery}
    refusal = rest_refusal(await space.http.post("/percolators/queries", json=body))
    assert (422, {"delivery.secret"}) == (refusal.code, set(refusal.fields))
    assert "!!!" not in refusal.message


async def test_a_redirect_is_not_followed(space: Api, collection: str, photos: PhotoHost, number: int) -> None:
    """An endpoint that redirects to a private address leads nowhere: a failure that says so, and is tried again."""
    elsewhere, visits = f"elsewhere/{number}", []

    async def visited(request: web.Request) -> web.Response:
        visits.append(request)
        return web.Response()

    async def redirects(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": photos.url(elsewhere)})

    photos.handlers[elsewhere], photos.handlers[f"hook/{number}"] = visited, redirects
    delivery = {"webhook_url": photos.url(f"hook/{number}"), "secret": SECRET}
    percolator_id = await store(space, collection, text("one"), delivery=delivery)
    await space.run(with_texts(photos, collection, number, "one"))
    await shown(space, percolator_id, state="retrying", last_error="answered 307: redirects are not followed")
    assert [] == visits
    assert 200 == (await space.http.delete(f"/percolators/queries/{percolator_id}")).status_code


async def test_matches_are_sent_again(space: Api, collection: str, photos: PhotoHost, number: int) -> None:
    """Given up, a match is a dead letter that is sent when asked for; so is everything since a time."""
    calls = receive(photos, f"hook/{number}", 410)
    delivery = {"webhook_url": photos.url(f"hook/{number}"), "secret": SECRET}
    percolator_id = await store(space, collection, text("one"), delivery=delivery)
    path = f"/percolators/queries/{percolator_id}/redeliver"
    task = await space.run(with_texts(photos, collection, number, "one"))
    await shown(space, percolator_id, state="gone")
    assert 409 == rest_refusal(await space.http.post(path, json={})).code
    body = {"collection_ids": [collection], "queries": [text("one")], "delivery": delivery}
    replaced = await space.http.put(f"/percolators/queries/{percolator_id}", json=body)
    assert ("active", 200) == (replaced.json()["delivery"]["state"], replaced.status_code)
    assert {"percolator_id": percolator_id, "queued": 0} == (await space.http.post(path, json={})).json()
    since = (datetime.now(UTC) - timedelta(minutes=5)).isoformat()
    assert {"percolator_id": percolator_id, "queued": 1} == (await space.http.post(path, json={"since": since})).json()
    await until(lambda: len(calls) == 2)
    assert [[match["match_id"] for match in task["matches"]]] * 2 == [call.match_ids for call in calls]
    bare = await store(space, collection, text("one"))
    refusal = rest_refusal(await space.http.post(f"/percolators/queries/{bare}/redeliver", json={}))
    assert (422, "this stored query has no webhook") == (refusal.code, refusal.fields["percolator_id"])
    assert 404 == (await space.http.post("/percolators/queries/none/redeliver", json={})).status_code


async def test_the_secret_is_never_shown(
    mesh: Mesh, space: Api, collection: str, photos: PhotoHost, number: int
) -> None:
    """No answer about a stored query, whether it succeeds or not, and no log holds the secret or the URL's query."""
    calls = receive(photos, f"hook/{number}", 500)
    secret = f"an-own-secret-of-this-test-{number}"
    url = photos.url(f"hook/{number}?token=sesame-{number}")
    body = {"collection_ids": [collection], "queries": [text("one")]}
    body |= {"delivery": {"webhook_url": url, "secret": secret}}
    answers = [await space.http.post("/percolators/queries", json=body)]
    percolator_id = answers[0].json()["percolator_id"]
    path = f"/percolators/queries/{percolator_id}"
    await space.run(with_texts(photos, collection, number, "one"))
    await until(lambda: len(calls) == 2)
    answers += [await space.http.get(f"{path}?include_vectors=true"), await space.http.put(path, json=body)]
    answers += [await space.http.get("/percolators/queries?page_size=100"), await space.http.post(f"{path}/redeliver")]
    wrong = {"delivery": {"webhook_url": "ftp://hook.test", "secret": secret}}
    answers += [await space.http.post("/percolators/queries", json=body | wrong), await space.http.delete(path)]
    for answer in answers:
        assert secret not in answer.text + json.dumps(dict(answer.headers))
    log = Path(mesh.config.data_dir).parent.joinpath("mesh.log").read_text()
    assert percolator_id in log
    assert (False, False) == (secret in log, f"sesame-{number}" in log)
