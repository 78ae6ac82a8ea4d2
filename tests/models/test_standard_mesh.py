"""The mesh with another model set, by configuration alone."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image

from runner.mesh import Mesh
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
    try:
        best = await _best_match(mesh, photos)
    finally:
        await mesh.stop()

    assert (photos.url("blue.jpg"), "a blue picture") == (best["url"], best["description"])


async def _best_match(mesh: Mesh, photos: PhotoHost) -> dict[str, Any]:
    """Two photos are indexed; what is found for the word blue."""
    api = api_of(mesh)
    for name in ("red", "blue"):
        extractors = {"describe": {}, "embed": [{"type": "url", "vector_index": "multimodal"}]}
        url = photos.put(f"{name}.jpg", _jpeg(name))
        task = await api.run({"url": url, "collection_id": "colors", "feature_extractors": extractors})
        assert "DONE" == task["status"], task
    query = {"vector_index": "multimodal", "type": "text", "value": "blue"}
    response = await api.http.post("/features/search", json={"collection_ids": ["colors"], "queries": [query]})
    await api.http.aclose()
    await api.channel.close()
    return dict(response.json()["results"][0])
