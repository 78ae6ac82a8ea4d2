"""API keys from their making to their end, and who may see which of them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from lensmesh.v1 import namespace_pb2, organization_pb2

from runner.mesh import Mesh
from tests.api.doors import rest_refusal, rpc, rpc_refused
from tests.conftest import Api, api_of


@pytest.fixture
def user() -> str:
    """The email of a user whom nobody else uses."""
    return f"u{time.time_ns()}@example.org"


@pytest.fixture(scope="module")
async def limited(mesh: Mesh, api: Api) -> AsyncIterator[Api]:
    """A client with a key that administers one namespace."""
    namespace = f"keys-{time.time_ns()}"
    await api.http.post("/namespaces", json={"namespace_name": namespace, "vector_indexes": ["image"]})
    body = {"namespaces": [namespace], "permissions": ["admin"]}
    made = await make(api, f"{namespace}@example.org", body)
    client = api_of(mesh, made["api_key"])
    yield client
    await client.http.aclose()
    await client.channel.close()


def keys_of(user: str, *more: str) -> str:
    """The path of a user's keys, or of one of them."""
    return "/".join((f"/organizations/users/{user}/api-keys", *more))


async def make(client: Api, user: str, body: dict[str, Any] | None = None, name: str = "default") -> dict[str, Any]:
    """Make a key."""
    made = await client.http.post(f"{keys_of(user)}?key_name={name}", json=body or {})
    assert 200 == made.status_code, made.text
    return dict(made.json())


async def status_of(client: Api, api_key: str) -> int:
    """What a harmless request with a key is answered."""
    headers = {"Authorization": f"Bearer {api_key}"}
    return (await client.http.get("/collections", headers=headers)).status_code


async def refused(client: Api, api_key: str) -> str:
    """Why both doors refuse a key."""
    headers = {"Authorization": f"Bearer {api_key}"}
    refusal = rest_refusal(await client.http.get("/collections", headers=headers))
    metadata = (("authorization", headers["Authorization"]),)
    found = await rpc_refused(client, "ListCollections", namespace_pb2.ListCollectionsRequest(), metadata)
    assert (401, grpc.StatusCode.UNAUTHENTICATED) == (refusal.code, found.code)
    assert refusal.message == found.message
    return refusal.message


async def test_a_key_is_shown_once(api: Api, user: str) -> None:
    """Making a key shows it under both names that clients read; listings show its first characters alone."""
    made = await make(api, user, {"permissions": ["read"], "requests_per_minute": 9})
    assert (made["key"], made["name"], ["read"]) == (made["api_key"], made["key_name"], made["permissions"])
    assert datetime.fromisoformat(made["created_at"])
    response = await api.http.get(keys_of(user))
    assert made["key"] not in response.text
    [shown] = response.json()["results"]
    assert (None, "default", made["key"][:8], user, ["read"], False, None, 9) == tuple(
        shown[name]
        for name in (
            "key", "name", "prefix", "email", "permissions", "disabled", "expires_at", "requests_per_minute",
        )
    )  # fmt: skip
    listed = await rpc(api, "ListKeys", namespace_pb2.ListKeysRequest(email=user))
    assert (1, ["default"]) == (listed.pagination.total, [key.name for key in listed.results])
    assert not listed.results[0].HasField("key")


async def test_a_name_is_given_once(api: Api, user: str) -> None:
    """A second key of one user and name is 409 and ALREADY_EXISTS; of another user or name it is not."""
    await make(api, user)
    refusal = rest_refusal(await api.http.post(keys_of(user), json={}))
    assert (409, "conflict", True) == (refusal.code, refusal.type, "'default'" in refusal.message)
    found = await rpc_refused(api, "CreateKey", namespace_pb2.CreateKeyRequest(email=user))
    assert (grpc.StatusCode.ALREADY_EXISTS, refusal.message) == (found.code, found.message)
    await make(api, user, name="other")
    await make(api, f"x{user}")


async def test_a_key_is_changed(api: Api, user: str) -> None:
    """Permissions, state and name change; the key works by what it is now, and goes on under its new name."""
    made = await make(api, user)
    assert 200 == await status_of(api, made["key"])
    path = keys_of(user, "default")
    changed = (await api.http.patch(path, json={"disabled": True})).json()
    assert (True, "default", ["read", "write"]) == (changed["disabled"], changed["name"], changed["permissions"])
    assert "disabled" in await refused(api, made["key"])
    changed = (await api.http.patch(path, json={"disabled": False, "permissions": ["write"]})).json()
    assert ["write"] == changed["permissions"]
    assert 403 == await status_of(api, made["key"])
    await make(api, user, name="taken")
    refusal = rest_refusal(await api.http.patch(path, json={"name": "taken", "permissions": ["read"]}))
    assert 409 == refusal.code
    assert 403 == await status_of(api, made["key"])
    request = namespace_pb2.UpdateKeyRequest(email=user, key_name="default", name="new", permissions=[1, 2])
    assert "new" == (await rpc(api, "UpdateKey", request)).api_key.name
    assert 200 == await status_of(api, made["key"])
    assert 404 == rest_refusal(await api.http.patch(path, json={})).code
    assert ["new", "taken"] == [each["name"] for each in (await api.http.get(keys_of(user))).json()["results"]]


async def test_a_key_expires(api: Api, user: str) -> None:
    """From its time on, a key is refused with that time; one can't be made for the past."""
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    made = await make(api, user, {"expires_at": later})
    assert 200 == await status_of(api, made["key"])
    past = "2020-01-02T03:04:05Z"
    changed = (await api.http.patch(keys_of(user, "default"), json={"expires_at": past})).json()
    assert past == changed["expires_at"]
    assert f"expired at {past}" in await refused(api, made["key"])
    refusal = rest_refusal(await api.http.post(f"{keys_of(user)}?key_name=b", json={"expires_at": past}))
    assert (422, {"expires_at"}) == (refusal.code, set(refusal.fields))


async def test_a_key_gets_a_new_secret(api: Api, user: str) -> None:
    """Rotating shows a new key, and the old one stops at once."""
    old = (await make(api, user))["key"]
    rotated = (await api.http.post(keys_of(user, "default", "rotate"))).json()
    assert (200, True, "default") == (await status_of(api, rotated["key"]), rotated["key"] != old, rotated["name"])
    assert "not known" in await refused(api, old)
    request = namespace_pb2.RotateKeyRequest(email=user, key_name="default")
    assert 200 == await status_of(api, (await rpc(api, "RotateKey", request)).api_key.key)
    assert "not known" in await refused(api, rotated["key"])


async def test_a_key_is_deleted(api: Api, user: str) -> None:
    """A deleted key is refused at once, and its name is free again."""
    made = await make(api, user)
    deleted = await api.http.delete(keys_of(user, "default"))
    assert {"key_name": "default", "deleted": True} == deleted.json()
    assert "not known" in await refused(api, made["key"])
    assert 404 == rest_refusal(await api.http.delete(keys_of(user, "default"))).code
    again = await make(api, user)
    assert "not known" in await refused(api, made["key"])
    assert 200 == await status_of(api, again["key"])
    await rpc(api, "DeleteKey", namespace_pb2.DeleteKeyRequest(email=user, key_name="default"))
    assert "not known" in await refused(api, again["key"])


async def test_a_user_is_there_while_there_are_keys(api: Api, user: str) -> None:
    """The organization lists its users with their keys; deleting a user deletes the keys."""
    first, second = await make(api, user), await make(api, user, name="second")
    found = (await api.http.get(f"/organizations/users/{user}")).json()
    assert (user, ["default", "second"], {}) == (
        found["email"], [key["name"] for key in found["api_keys"]], found["metadata"],
    )  # fmt: skip
    assert first["created_at"] == found["created_at"]
    organization = (await api.http.get("/organizations")).json()
    assert found in organization["users"]
    assert first["key"] not in str(organization)
    by_rpc = await rpc(api, "GetUser", organization_pb2.GetUserRequest(email=user))
    assert found["user_id"] == by_rpc.user.user_id
    assert {"email": user, "deleted": True} == (await api.http.delete(f"/organizations/users/{user}")).json()
    for key in (first, second):
        assert "not known" in await refused(api, key["key"])
    for path in (f"/organizations/users/{user}", keys_of(user)):
        assert 404 == rest_refusal(await api.http.get(path)).code
    assert 404 == rest_refusal(await api.http.delete(f"/organizations/users/{user}")).code


async def test_the_last_key_for_everything_stays(mesh: Mesh, api: Api, user: str) -> None:
    """The only key that may do everything everywhere is not deleted, disabled, demoted or made to expire: 409."""
    users = (await api.http.get("/organizations")).json()["users"]
    keys = [key for each in users for key in each["api_keys"]]
    roots = [key for key in keys if key["namespaces"] == ["*"] and "admin" in key["permissions"]]
    [root] = [key for key in roots if key["prefix"] == mesh.api_key[:8]]
    for left in roots:
        # By another gateway that stood on the same bus before.
        if left != root:
            assert 200 == (await api.http.delete(keys_of(left["email"], left["name"]))).status_code
    path = keys_of(root["email"], root["name"])
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    refusals = [
        await api.http.delete(path),
        await api.http.delete(f"/organizations/users/{root['email']}"),
        *[
            await api.http.patch(path, json=body)
            for body in ({"disabled": True}, {"permissions": ["read", "write"]}, {"expires_at": later})
        ],
    ]
    for response in refusals:
        refusal = rest_refusal(response)
        assert (409, True) == (refusal.code, "last API key" in refusal.message)
    assert 200 == (await api.http.get("/organizations")).status_code
    await make(api, user, {"namespaces": ["*"], "permissions": ["admin"]})
    assert 200 == (await api.http.delete(keys_of(user, "default"))).status_code


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "", {"permissions": ["root"]}, "permissions.0"),
        ("POST", "", {"requests_per_minute": 0}, "requests_per_minute"),
        ("POST", "", {"key_name": "a/b"}, "key_name"),
        ("POST", "", {"expires_at": "tomorrow"}, "expires_at"),
        ("PATCH", "/default", {"name": ""}, "name"),
        ("PATCH", "/default", {"permissions": ["read", "read", "write", "admin"]}, "permissions"),
        ("PATCH", "/default", {"requests_per_minute": -1}, "requests_per_minute"),
        ("PATCH", "/default", {"key": "lm_mine"}, "key"),
    ],
)
async def test_a_bad_key_is_refused(
    api: Api, user: str, method: str, path: str, body: dict[str, Any], field: str
) -> None:
    """What no key can be is a 422 at its field, and nothing is made."""
    refusal = rest_refusal(await api.http.request(method, keys_of(user) + path, json=body))
    assert (422, {field}) == (refusal.code, set(refusal.fields))
    assert 404 == (await api.http.get(keys_of(user))).status_code


async def test_a_key_of_one_namespace_knows_its_own_keys_alone(api: Api, limited: Api, user: str) -> None:
    """Keys of other namespaces are 404 for every operation at both doors, and absent from every listing."""
    await make(api, user)
    assert 404 == rest_refusal(await limited.http.get(keys_of(user))).code
    assert 404 == rest_refusal(await limited.http.get(f"/organizations/users/{user}")).code
    assert 404 == rest_refusal(await limited.http.delete(f"/organizations/users/{user}")).code
    path = keys_of(user, "default")
    for method, each in (("PATCH", path), ("DELETE", path), ("POST", f"{path}/rotate")):
        assert 404 == rest_refusal(await limited.http.request(method, each, json={})).code
    one = {"email": user, "key_name": "default"}
    for name, request in (
        ("ListKeys", namespace_pb2.ListKeysRequest(email=user)),
        ("UpdateKey", namespace_pb2.UpdateKeyRequest(**one)),
        ("RotateKey", namespace_pb2.RotateKeyRequest(**one)),
        ("DeleteKey", namespace_pb2.DeleteKeyRequest(**one)),
        ("GetUser", organization_pb2.GetUserRequest(email=user)),
        ("DeleteUser", organization_pb2.DeleteUserRequest(email=user)),
    ):
        assert grpc.StatusCode.NOT_FOUND == (await rpc_refused(limited, name, request)).code, name
    mine = f"mine{time.time_ns()}@example.org"
    await make(limited, mine)
    organization = (await limited.http.get("/organizations")).json()
    [namespace] = [each["namespace_id"] for each in (await limited.http.get("/namespaces")).json()]
    assert {(namespace,)} == {tuple(key["namespaces"]) for each in organization["users"] for key in each["api_keys"]}
    assert mine in {each["email"] for each in organization["users"]}
    # Another's name is taken all the same, as names are the user's.
    assert 409 == (await limited.http.post(keys_of(user), json={})).status_code


async def test_keys_need_the_permission_admin(mesh: Mesh, api: Api, user: str) -> None:
    """A key that reads and writes is refused every operation on keys and users."""
    key = (await make(api, user))["key"]
    client = api_of(mesh, key)
    asked = [
        ("POST", keys_of(user)), ("GET", keys_of(user)), ("PATCH", keys_of(user, "default")),
        ("POST", keys_of(user, "default", "rotate")), ("DELETE", keys_of(user, "default")),
        ("GET", "/organizations"), ("GET", f"/organizations/users/{user}"), ("DELETE", f"/organizations/users/{user}"),
    ]  # fmt: skip
    for method, path in asked:
        assert 403 == rest_refusal(await client.http.request(method, path)).code, (method, path)
    assert 200 == (await client.http.get("/organizations/usage")).status_code
    await client.http.aclose()
    await client.channel.close()
