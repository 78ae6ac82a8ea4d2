"""Changes of what is stored: new metadata, and removals that leave nothing behind.

Whoever changes an asset holds its turn. Images that may have no owner any more are handed to `leftovers`.
"""

from __future__ import annotations

from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from lensmesh.v1 import asset_pb2, embedder_pb2, feature_pb2

from services.embedder import keywords, rows
from services.embedder.generations import Generations
from services.embedder.inputs import info_of, words_of_metadata
from services.embedder.leftovers import Leftovers
from services.embedder.milvus import Milvus
from services.embedder.store import QUERY_LIMIT_MAX, Store
from services.embedder.vectors import KEYWORD
from services.mesh.bus.tasks import now
from services.mesh.tenancy import Tenant


class Changes:
    """Changes and removes."""

    def __init__(self, milvus: Milvus, store: Store, generations: Generations, leftovers: Leftovers) -> None:
        self._milvus = milvus
        self._store = store
        self._generations = generations
        self._leftovers = leftovers

    async def write_asset_metadata(
        self, tenant: Tenant, asset_id: str, metadata: Struct, *, merge: bool, propagate: bool
    ) -> asset_pb2.Asset:
        """Give an asset new metadata, and its features if they are to follow. Raises NotFound."""
        async with self._store.turn(asset_id):
            asset = await self._store.read_asset(tenant, asset_id)
            asset.metadata.CopyFrom(merged(asset.metadata, metadata) if merge else metadata)
            asset.updated_at.CopyFrom(now())
            await self._store.write_asset(tenant, asset)
            if propagate:
                await self.propagate(tenant, asset_id, asset.metadata)
        return asset

    async def propagate(self, tenant: Tenant, asset_id: str, metadata: Struct) -> None:
        """Give all features of an asset new metadata; the caller holds the asset's turn."""
        for feature in await self._store.whole_features(tenant, asset_id):
            await self._rewrite(tenant, feature, metadata)

    async def write_feature_metadata(self, tenant: Tenant, feature_id: str, metadata: Struct) -> feature_pb2.Feature:
        """Give one feature new metadata. Raises NotFound."""
        asset_id = (await self._store.whole_feature(tenant, feature_id)).asset_id
        async with self._store.turn(asset_id):
            await self._rewrite(tenant, await self._store.whole_feature(tenant, feature_id), metadata)
        return (await self._store.features_by_id(tenant, [feature_id]))[feature_id]

    async def remove_asset(self, tenant: Tenant, asset_id: str) -> asset_pb2.Asset:
        """Remove an asset with its features and vectors; returns it as it was. Raises NotFound."""
        async with self._store.turn(asset_id):
            asset = await self._store.read_asset(tenant, asset_id)
            features = await self._store.whole_features(tenant, asset_id)
            images = {asset.file_hash} | {image for each in features for image in rows.images_of(each)}
            # Noted before anything is removed, so that a crash in between leaves no image behind.
            await self._leftovers.note(tenant, images)
            await self._store.drop_features(tenant, asset_id)
            # Last: while it is there, a removal that broke off can be called again.
            await self._store.drop_asset(tenant, asset_id)
        return asset

    async def remove_feature(self, tenant: Tenant, feature_id: str) -> None:
        """Remove a feature with its vectors. Raises NotFound."""
        feature = await self._store.whole_feature(tenant, feature_id)
        async with self._store.turn(feature.asset_id):
            await self._leftovers.note(tenant, rows.images_of(feature))
            await self._store.drop_features(tenant, feature.asset_id, only=feature_id)

    async def remove_collection(self, tenant: Tenant, collection_id: str) -> int:
        """Remove everything of a collection; returns how many assets it held."""
        here = rows.equals("collection_id", collection_id)
        assets = 0
        async for part in self._store.parts(tenant, "", here, ["kind", "images"]):
            await self._leftovers.note(tenant, {image for row in part for image in row["images"].split()})
            assets += sum(row["kind"] == rows.ASSET for row in part)
        for name in self._store.index_collections(tenant):
            await self._milvus.delete(name, here)
        await self._milvus.delete(rows.documents_collection(tenant), here)
        return assets

    async def drop_namespace(self, tenant: Tenant) -> None:
        """Remove everything of a namespace; its blobs are removed by who removes the namespace."""
        for name in await self._milvus.names(tenant.milvus_collection("")):
            await self._milvus.drop(name)
        await self._generations.forget(tenant)

    async def _rewrite(self, tenant: Tenant, feature: feature_pb2.Feature, metadata: Struct) -> None:
        """Write a feature and its vectors with new metadata, and the vectors of the metadata's own words anew."""
        feature.metadata.CopyFrom(metadata)
        value = MessageToDict(metadata)
        others = [each for each in feature.vectors if each.field_name != keywords.METADATA]
        words: list[embedder_pb2.NamedVector] = []
        if any(each.vector_index == KEYWORD for each in others):
            words = words_of_metadata(metadata, self._generations.written(tenant, KEYWORD))
        del feature.vectors[:]
        feature.vectors.extend(others)
        feature.vectors.extend(map(info_of, words))
        of_feature = rows.equals("feature_id", feature.feature_id)
        for name in self._store.index_collections(tenant):
            found = await self._milvus.query(
                name, of_feature, ["id", *rows.VECTOR_STRINGS, "vector"], limit=QUERY_LIMIT_MAX
            )
            silent = [row["id"] for row in found if row["field_name"] == keywords.METADATA]
            if silent and not words:
                # Milvus refuses a vector without words, so the row goes.
                await self._milvus.delete(name, rows.among("id", silent))
            kept = [row | {"metadata": value} for row in found if row["id"] not in silent]
            if kept:
                await self._milvus.upsert(name, None, kept)
        await self._store.write(tenant, feature, words)


def merged(old: Struct, new: Struct) -> Struct:
    """The old object with the keys of the new one set."""
    result = Struct()
    result.CopyFrom(old)
    for key, value in new.fields.items():
        result.fields[key].CopyFrom(value)
    return result
