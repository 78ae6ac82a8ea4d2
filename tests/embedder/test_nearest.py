"""Searches whose filter Milvus can't say, in more rows than one search returns, held against all rows one by one."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import numpy as np
import pytest
from lensmesh.v1 import common_pb2, embedder_pb2

from runner.mesh import Mesh
from services.embedder import nearest, rows
from services.embedder.config import MilvusSettings
from services.embedder.milvus import Milvus, Schema
from services.embedder.nearest import Hit, Nearest
from services.mesh.errors import InvalidArgument
from services.mesh.filters import Leaf, NoneOf, Operator
from services.mesh.tenancy import Tenant

TENANT, VERSION, DIM = Tenant("ns_nearest"), "v1", 4
FEATURES, VECTORS_EACH = 60, 2
# Of sixty features, these three are selected; the store can't say so.
RARE = NoneOf((Leaf(("metadata", "n"), Operator.LT, FEATURES - 3),))


def unit(seed: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """A direction, float32[4]."""
    made = np.random.default_rng(seed).standard_normal(DIM).astype(np.float32)
    return made / np.linalg.norm(made)


QUERY = unit(0)


@pytest.fixture(scope="module")
async def searched(mesh: Mesh) -> AsyncIterator[Nearest]:
    """An index of sixty features with two vectors each, under random ids."""
    milvus = Milvus(mesh.endpoints["milvus_uri"], MilvusSettings())
    made = [
        {
            "id": str(uuid.uuid4()),
            "feature_id": f"f{n}",
            "asset_id": f"a{n}",
            "collection_id": "c",
            "modality": "image",
            "field_name": str(which),
            "metadata": {"n": n},
            "vector": unit(1 + n * VECTORS_EACH + which).tolist(),
        }
        for n in range(FEATURES)
        for which in range(VECTORS_EACH)
    ]
    name = rows.index_collection(TENANT, common_pb2.VECTOR_INDEX_IMAGE, VERSION)
    await milvus.upsert(name, Schema(strings=rows.VECTOR_STRINGS, dim=DIM), made)
    yield Nearest(milvus, None)  # type: ignore[arg-type]
    await milvus.drop(name)
    await milvus.close()


async def find(searched: Nearest, limit: int) -> list[Hit]:
    """The features that the rare filter selects."""
    query = embedder_pb2.EmbeddedVector(vector_index=common_pb2.VECTOR_INDEX_IMAGE, model_version=VERSION)
    query.vector.dense = QUERY.tobytes()
    return await searched.features(TENANT, query, ["c"], RARE, limit)


@pytest.mark.parametrize("window", [8, 30, 16_384])
async def test_rare_ones_are_all_found(searched: Nearest, monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    """Whatever one search may return, each selected feature is found once, by the better of its vectors."""
    monkeypatch.setattr(nearest, "QUERY_LIMIT_MAX", window)
    best = {
        f"f{n}": max(float(QUERY @ unit(1 + n * VECTORS_EACH + which)) for which in range(VECTORS_EACH))
        for n in range(FEATURES - 3, FEATURES)
    }
    expected = sorted(best, key=lambda each: (-max(best[each], 0.0), each))
    hits = await find(searched, 3)
    assert expected == [hit.feature_id for hit in hits]
    assert [max(best[each], 0.0) for each in expected] == pytest.approx([hit.score for hit in hits], abs=1e-5)


async def test_a_search_has_an_end(searched: Nearest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that would look at more rows than it may is refused, naming the filters."""
    monkeypatch.setattr(nearest, "QUERY_LIMIT_MAX", 8)
    monkeypatch.setattr(nearest, "_SEEN_MAX", 50)
    with pytest.raises(InvalidArgument, match="filters: select too few of more than 50 rows"):
        await find(searched, 3)
