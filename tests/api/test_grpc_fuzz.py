"""Hypothesis against the gRPC door: made-up messages of each unary method and of an import are answered or refused."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import hypothesis
import hypothesis.strategies as st
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import Struct, Value
from lensmesh.v1 import percolator_pb2

from tests.api.doors import METHODS, rpc, rpc_refusal
from tests.api.test_import_export import exchange
from tests.conftest import Api, PhotoHost

_F = FieldDescriptor
EXAMPLES = 25
DEPTH_MAX = 4
# A refusal with any other code says why; these say that something is broken.
FAULTS = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED)
UNARY = sorted(
    name
    for name, method in METHODS.items()
    if not (method.server_streaming or method.client_streaming)
)  # fmt: skip


def texts(known: list[str]) -> st.SearchStrategy[str]:
    """Texts of all kinds, real ids, and URLs of the photo host alone."""
    made_up = st.text(max_size=40).filter(lambda text: not text.strip().lower().startswith("http"))
    return st.one_of(st.sampled_from(known), made_up, st.sampled_from(["", " ", "\x00", "a" * 300, "../..", "*", ">"]))


def values(depth: int = 0) -> st.SearchStrategy[Any]:
    """JSON values, finite and not."""
    plain = st.one_of(st.none(), st.booleans(), st.floats(), st.integers(-(2**53), 2**53), st.text(max_size=20))
    if depth >= DEPTH_MAX:
        return plain
    inner = values(depth + 1)
    return st.one_of(plain, st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3))


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor, known: list[str], depth: int = 0) -> Message:
    """A message with some of its fields set, within the types' limits and whatever the rules say."""
    message = GetMessageClass(descriptor)()
    if isinstance(message, Struct):
        message.update(draw(st.dictionaries(st.text(max_size=8), values(), max_size=3)))
        return message
    if isinstance(message, Value):
        holder = Struct()
        holder["value"] = draw(values())
        return holder.fields["value"]
    for field in descriptor.fields:
        if not draw(st.booleans()):
            continue
        if field.message_type is not None and (depth >= DEPTH_MAX or field.message_type.GetOptions().map_entry):
            continue
        one = messages(field.message_type, known, depth + 1) if field.message_type else scalars(field, known)
        if field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(one, max_size=3)))
        elif field.message_type:
            getattr(message, field.name).CopyFrom(draw(one))
        else:
            setattr(message, field.name, draw(one))
    return message


def scalars(field: FieldDescriptor, known: list[str]) -> st.SearchStrategy[Any]:
    """Values of a scalar field."""
    if field.type == _F.TYPE_ENUM:
        return st.integers(0, len(field.enum_type.values) + 1)
    return {
        _F.TYPE_STRING: texts(known),
        _F.TYPE_BYTES: st.binary(max_size=64),
        _F.TYPE_BOOL: st.booleans(),
        _F.TYPE_DOUBLE: st.floats(),
        _F.TYPE_FLOAT: st.floats(width=32),
        _F.TYPE_INT32: st.one_of(st.integers(-2, 3), st.integers(-(2**31), 2**31 - 1)),
        _F.TYPE_INT64: st.one_of(st.integers(-2, 3), st.integers(-(2**63), 2**63 - 1)),
        _F.TYPE_UINT32: st.integers(0, 2**32 - 1),
        _F.TYPE_UINT64: st.one_of(st.integers(0, 3), st.integers(0, 2**64 - 1)),
    }[field.type]


@pytest.fixture
async def known(tenant: Api, photos: PhotoHost) -> list[str]:
    """The ids of one of everything, and a URL that may be fetched."""
    url = photos.picture_url(79)
    query = {"vector_index": "multimodal", "type": "url", "value": url}
    stored = {"collection_ids": ["fuzzed"], "queries": [query], "min_score": 0}
    percolator = await tenant.http.post("/percolators/queries", json=stored)
    task = await tenant.run({"url": url, "collection_id": "fuzzed", "percolate": {}, "metadata": {"price": 1}})
    feature = task["outputs"][0]["feature_id"]
    return [
        url,
        "fuzzed",
        "metadata.price",
        task["task_id"],
        task["asset_id"],
        feature,
        percolator.json()["percolator_id"],
    ]


async def test_no_message_breaks_the_door(tenant: Api, known: list[str]) -> None:
    """No made-up message ends in INTERNAL, UNKNOWN or silence, and every refusal has its details."""
    loop = asyncio.get_running_loop()

    def fuzz(name: str) -> None:
        @hypothesis.settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(request=messages(METHODS[name].input_type, known))
        def attempt(request: Message) -> None:
            asyncio.run_coroutine_threadsafe(call(tenant, name, request), loop).result()

        attempt()

    def run() -> None:
        for name in UNARY:
            fuzz(name)

    await asyncio.to_thread(run)


async def test_no_line_breaks_an_import(tenant: Api, known: list[str]) -> None:
    """Of made-up stored queries each is stored or refused with its reason, and the import comes to its end."""
    loop = asyncio.get_running_loop()
    kind = percolator_pb2.ImportStoredQueriesRequest

    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(requests=st.lists(messages(kind.DESCRIPTOR, known), max_size=8))
    def attempt(requests: list[Message]) -> None:
        asyncio.run_coroutine_threadsafe(import_all(tenant, requests), loop).result()

    await asyncio.to_thread(attempt)


async def import_all(client: Api, requests: list[Message]) -> None:
    """Import messages; fails unless each is counted, and every refusal told."""
    told = [each async for each in exchange(client, iter(requests))]
    last = told[-1]
    assert (len(requests), True) == (last.read, last.finished)
    failures = [one for each in told for one in each.failures]
    assert (len(requests), len(failures)) == (last.stored + last.failed, last.failed)
    assert not {each.type for each in failures} & {"internal_error", ""}


async def call(client: Api, name: str, request: Message) -> None:
    """Call a method; fails on an answer that no caller could understand."""
    try:
        await rpc(client, name, request)
        return
    except grpc.aio.AioRpcError as error:
        refused = error
    assert refused.code() not in FAULTS, f"{name}({request}): {refused.code()} {refused.details()}"
    rpc_refusal(refused)
