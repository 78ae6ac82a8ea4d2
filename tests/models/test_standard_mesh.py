"""The mesh with another model set, by configuration alone."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from runner.mesh import Mesh, read_model_set
from runner.process import StartFailed
from tests.conftest import PhotoHost, api_of, mesh_config
from tests.models.conftest import Server
from tests.models.standard_tree import Tree


def _jpeg(color: str) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (320, 240), color).save(data, "JPEG", quality=95)
    return data.getvalue()


async def test_a_photo_is_described_and_found(
    standard_server: Server, tree: Tree, photos: PhotoHost, tmp_path: Path
) -> None:
    """With the path of a set the services use its models: their caption, their dimensions, their text in a search."""
    set_path = tree.models / "sets" / "standard.json"
    config = mesh_config(tmp_path / "data", photos, model_set=str(set_path), triton_address=standard_server.address)
    mesh = Mesh(config, lambda name, line: None)
    await mesh.start()
    api = api_of(mesh)
    urls = {name: photos.put(f"{name}.jpg", _jpeg(name)) for name in ("red", "blue")}

    for url in urls.values():
        task = await api.run(
            {
                "url": url,
                "collection_id": "colors",
                "feature_extractors": {"describe": {}, "embed": [{"type": "url", "vector_index": "multimodal"}]},
            }
        )
        assert "DONE" == task["status"], task
    query = {"vector_index": "multimodal", "type": "text", "value": "blue"}
    response = await api.http.post("/features/search", json={"collection_ids": ["colors"], "queries": [query]})
    await api.http.aclose()
    await api.channel.close()
    await mesh.stop()

    best = response.json()["results"][0]
    assert (urls["blue"], "a blue picture") == (best["url"], best["description"])


def test_a_set_of_ones_own_is_read_by_its_path(tmp_path: Path) -> None:
    """The runner takes a name in models/sets or the path of a document, as the services do."""
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"name": "own", "repository": "/models", "roles": {}}))

    assert "own" == read_model_set(str(path))["name"]
    assert "standard" == read_model_set("standard")["name"]
    with pytest.raises(StartFailed, match=r"no model set 'nope'; there are: lite, standard, trivial"):
        read_model_set("nope")
