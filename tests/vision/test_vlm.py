"""A vision-language model over the OpenAI API: what is asked, what becomes of answers, and failures.

No such model is to be had here: a web server of the test's own speaks the protocol and answers as it is told.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import SecretStr

from runner.mesh import Mesh
from services.mesh.config import ConfigError, load
from services.mesh.errors import LensmeshError, ModelRefused, Unavailable
from services.vision.structured import conform, json_schema
from services.vision.vlm import Vlm, VlmSettings
from tests.conftest import PhotoHost, api_of, mesh_config

SHAPE = {"brand": "str", "people": "int", "price": "float", "sale": "bool", "items": [{"name": "str"}], "tags": ["str"]}


@dataclass
class Server:
    """An OpenAI-compatible server that says what it is told to, and keeps what it was asked."""

    port: int = 0
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    says: str = "A red bus."
    status: int = 200
    body: bytes | None = None

    def settings(self, **changes: Any) -> VlmSettings:
        """How to reach it."""
        given: dict[str, Any] = {"url": f"http://127.0.0.1:{self.port}/v1", "model": "eyes-7b"}
        return VlmSettings(**(given | changes))

    async def answer(self, request: web.Request) -> web.Response:
        """Answer a question."""
        self.asked.append(await request.json())
        self.keys.append(request.headers.get("Authorization"))
        if self.body is not None or self.status != 200:
            return web.Response(status=self.status, body=self.body or b"no such thing")
        return web.json_response({"choices": [{"message": {"role": "assistant", "content": self.says}}]})


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server on a free port of loopback."""
    server = Server()
    app = web.Application(client_max_size=10_000_000)
    app.router.add_post("/v1/chat/completions", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.port = runner.addresses[0][1]
    yield server
    await runner.cleanup()


@pytest.fixture
async def vlm(server: Server) -> AsyncIterator[Vlm]:
    """A client of it."""
    client = Vlm(server.settings(api_key=SecretStr("secret-key")))
    yield client
    await client.close()


def jpeg() -> bytes:
    """A small image."""
    content = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(content, "JPEG")
    return content.getvalue()


async def test_the_model_sees_the_image_and_the_prompt(server: Server, vlm: Vlm) -> None:
    """The image goes as a data URL beside the prompt, with the key, and the answer comes back."""
    image = jpeg()
    assert "A red bus." == await vlm.text(image, "What is this?")
    picture, prompt = server.asked[0]["messages"][0]["content"]
    assert f"data:image/jpeg;base64,{base64.b64encode(image).decode()}" == picture["image_url"]["url"]
    assert "What is this?" == prompt["text"]
    assert "eyes-7b" == server.asked[0]["model"]
    assert "response_format" not in server.asked[0]
    assert ["Bearer secret-key"] == server.keys


async def test_a_shape_is_a_schema_and_the_answer_conforms(server: Server, vlm: Vlm) -> None:
    """The server is given the schema; the answer has the shape's keys and types, whatever else the model says."""
    server.says = 'Sure!\n```json\n{"brand": "Acme", "people": "3", "price": null, "sale": "yes", "more": 1}\n```'
    found = await vlm.shaped(jpeg(), "About the bus.", SHAPE)
    assert {"brand": "Acme", "people": 3, "price": None, "sale": None, "items": [], "tags": []} == found
    wanted = server.asked[0]["response_format"]
    assert json_schema(SHAPE) == wanted["json_schema"]["schema"]
    assert server.asked[0]["messages"][0]["content"][1]["text"].startswith("About the bus.")


async def test_a_text_is_asked_about_like_an_image(server: Server, vlm: Vlm) -> None:
    """A text goes as it is, before the prompt, and its answer conforms as well."""
    server.says = '{"people": 2}'
    assert {"people": 2} == await vlm.shaped("Ann met Bob.", "Count them.", {"people": "int"})
    text, prompt = server.asked[0]["messages"][0]["content"]
    assert {"type": "text", "text": "Ann met Bob."} == text
    assert prompt["text"].startswith("Count them.")


async def test_a_server_without_schemas_is_told_in_the_prompt(server: Server) -> None:
    """With LENSMESH_VLM_SCHEMA_CONSTRAINED off, only the prompt has the schema."""
    client = Vlm(server.settings(schema_constrained=False))
    server.says = '{"brand": "Acme"}'
    assert {"brand": "Acme"} == await client.shaped(jpeg(), "", {"brand": "str"})
    assert "response_format" not in server.asked[0]
    assert json.dumps(json_schema({"brand": "str"})) in server.asked[0]["messages"][0]["content"][1]["text"]
    await client.close()


@pytest.mark.parametrize(
    ("status", "body", "error", "says"),
    [
        (429, None, Unavailable, "HTTP 429"),
        (503, None, Unavailable, "HTTP 503"),
        (400, None, ModelRefused, "no such thing"),
        (302, None, ModelRefused, "HTTP 302"),
        (200, b"<html>", ModelRefused, "not answer with JSON"),
        (200, b'{"choices": []}', ModelRefused, "no answer"),
        (200, b'{"choices": [{"message": {"content": ""}}]}', ModelRefused, "no answer"),
        (200, b" " * 2_000, ModelRefused, "1000 bytes"),
    ],
)
async def test_what_goes_wrong_is_said(
    server: Server, status: int, body: bytes | None, error: type[LensmeshError], says: str
) -> None:
    """Overload may pass and is tried again; a refusal or nonsense is the model's failure; neither says the key."""
    client = Vlm(server.settings(answer_bytes_max=1_000, api_key=SecretStr("secret-key")))
    server.status, server.body = status, body
    with pytest.raises(error, match=says) as raised:
        await client.text(jpeg(), "?")
    assert "secret-key" not in str(raised.value)
    await client.close()


async def test_a_server_that_is_away_may_come_back(server: Server) -> None:
    """Nobody listening is an error that is tried again."""
    client = Vlm(server.settings(url="http://127.0.0.1:9/v1"))
    with pytest.raises(Unavailable, match="does not answer"):
        await client.text(jpeg(), "?")
    await client.close()


async def test_an_answer_that_is_no_object_fails(server: Server, vlm: Vlm) -> None:
    """A shape can't be filled from prose."""
    with pytest.raises(ModelRefused, match="JSON object"):
        await vlm.shaped(jpeg(), "", SHAPE)


def test_half_a_configuration_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address without a model's name is a mistake, named as such."""
    monkeypatch.setenv("LENSMESH_VLM_URL", "http://127.0.0.1:1/v1")
    with pytest.raises(ConfigError, match="LENSMESH_VLM_MODEL"):
        load(VlmSettings)


def test_an_address_that_is_no_url_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host and port alone end the start with a clear message, instead of every task later."""
    monkeypatch.setenv("LENSMESH_VLM_URL", "vllm:8000/v1")
    monkeypatch.setenv("LENSMESH_VLM_MODEL", "eyes-7b")
    with pytest.raises(ConfigError, match="LENSMESH_VLM_URL must be an http"):
        load(VlmSettings)


SCALARS = st.sampled_from(["str", "int", "float", "bool"])
SHAPES = st.dictionaries(
    st.text(max_size=3),
    st.recursive(SCALARS, lambda inner: st.lists(inner, min_size=1, max_size=1) | st.dictionaries(st.text(), inner)),
    max_size=4,
)
ANSWERS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
)


def has_shape(kind: Any, value: Any) -> bool:
    """Whether a value is of a shape, scalars being nullable."""
    if isinstance(kind, dict):
        return isinstance(value, dict) and set(kind) == set(value) and all(has_shape(kind[k], value[k]) for k in kind)
    if isinstance(kind, list):
        return isinstance(value, list) and all(each is not None and has_shape(kind[0], each) for each in value)
    return value is None or type(value) is {"str": str, "int": int, "float": float, "bool": bool}[kind]


@given(SHAPES, ANSWERS)
def test_every_answer_conforms(shape: dict[str, Any], answer: Any) -> None:
    """Whatever a model says, the result has exactly the shape's keys and types, and saying it again changes nothing."""
    found = conform(shape, answer)
    assert has_shape(shape, found)
    assert found == conform(shape, found)


async def test_prompts_and_shapes_go_to_the_model(server: Server, photos: PhotoHost, tmp_path: Path) -> None:
    """In a mesh with such a model, prompts are answered by it, steps say so, and the rest stays with the model set."""
    settings = {"LENSMESH_VLM_URL": f"http://127.0.0.1:{server.port}/v1", "LENSMESH_VLM_MODEL": "eyes-7b"}
    with (tmp_path / "log").open("w") as log:
        mesh = Mesh(
            mesh_config(tmp_path / "data", photos, settings=settings),
            lambda name, line: print(name, line, file=log, flush=True),
        )
        await mesh.start()
        client = api_of(mesh)
        blocks = {"describe": {"prompt": "As a poem", "max_length": 5}, "read": {}}
        described = await client.run(body(photos, 1, blocks))
        feature = await only_feature(client, described)
        assert "A red" == feature["description"]
        assert "trivial" == feature["text"]
        assert "answered by eyes-7b" == described["steps"]["describe"]["note"]
        assert described["steps"]["read"]["note"] is None
        server.says = '{"brand": "Acme", "moon": "full"}'
        shape = {"json_output": {"response_shape": {"brand": "str"}}}
        shaped = await only_feature(client, await client.run(body(photos, 2, shape)))
        assert {"brand": "Acme"} == shaped["json_output"]
        embed = {"type": "text", "vector_index": "text", "value": "Acme is on the moon"}
        text = {"collection_id": "c", "feature_extractors": shape | {"embed": [embed]}}
        response = await client.http.post("/index/text", json=text)
        task = await client.finished(response.json()["task_id"])
        assert ("DONE", "answered by eyes-7b") == (task["status"], task["steps"]["json_output"]["note"])
        assert "Acme is on the moon" == server.asked[-1]["messages"][0]["content"][0]["text"]
        server.status = 400
        failed = await client.run(body(photos, 3, blocks))
        assert ("FAILED", "describe") == (failed["status"], failed["error"]["stage"])
        assert "eyes-7b" in failed["error"]["message"]
        assert "DONE" == failed["steps"]["read"]["state"]
        await client.http.aclose()
        await client.channel.close()
        await mesh.stop()


def body(photos: PhotoHost, number: int, blocks: dict[str, Any]) -> dict[str, Any]:
    """A request."""
    return {"url": photos.picture_url(number), "collection_id": "c", "feature_extractors": blocks}


async def only_feature(client: Any, task: dict[str, Any]) -> dict[str, Any]:
    """The feature of a task's asset."""
    assert "DONE" == task["status"], task
    found = (await client.http.get(f"/assets/{task['asset_id']}/features")).json()["features"]["image"]
    return dict(found[0])
