"""The collections of a namespace, in memory and followed."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from lensmesh.v1 import embedder_pb2, embedder_pb2_grpc, engine_pb2, engine_pb2_grpc, namespace_pb2
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from services.gateway.auth import Caller
from services.gateway.config import GatewaySettings
from services.gateway.core.files import Files
from services.gateway.core.paging import page_of, pagination
from services.mesh.bus import topology
from services.mesh.bus.mirror import Mirror
from services.mesh.bus.tasks import now
from services.mesh.bus.topology import Bus
from services.mesh.errors import Conflict, InvalidArgument, NotFound, QuotaExceeded
from services.mesh.tenancy import Tenant


class Collections:
    """Makes, finds, lists, changes and deletes collections."""

    def __init__(
        self,
        bus: Bus,
        bucket: KeyValue,
        embedder: embedder_pb2_grpc.EmbedderServiceAsyncStub,
        percolator: engine_pb2_grpc.PercolatorEngineServiceAsyncStub,
        files: Files,
        settings: GatewaySettings,
    ) -> None:
        self._bucket = bucket
        self._embedder = embedder
        self._percolator = percolator
        self._files = files
        self._settings = settings
        self._mirror = Mirror(bus, topology.COLLECTIONS, namespace_pb2.Collection)

    async def start(self) -> None:
        """Load all, and go on following."""
        await self._mirror.start()

    async def close(self) -> None:
        """Follow no more."""
        await self._mirror.stop()

    def find(self, tenant: Tenant, name_or_id: str, path: str) -> str:
        """The id of a collection given by name or id.

        Raises:
            NotFound: there is none in this namespace.
        """
        return self._find(tenant, name_or_id, path).collection_id

    def find_all(self, tenant: Tenant, names: list[str]) -> list[str]:
        """The ids of collections given by names or ids, each once. Raises NotFound."""
        return list(dict.fromkeys(self.find(tenant, name, f"collection_ids.{i}") for i, name in enumerate(names)))

    async def find_or_create(self, caller: Caller, name_or_id: str, path: str) -> str:
        """The id of a collection given by name or id; a name that is not known yet becomes a collection.

        Raises:
            InvalidArgument: the name is blank.
            QuotaExceeded: the namespace has as many collections as it may.
        """
        if not name_or_id.strip():
            raise InvalidArgument.field(path, "must not be blank", "string.blank")
        try:
            return self.find(caller.tenant, name_or_id, path)
        except NotFound:
            return (await self._add(caller, namespace_pb2.Collection(collection_name=name_or_id)))[0].collection_id

    async def create(
        self, caller: Caller, request: namespace_pb2.CreateCollectionRequest
    ) -> namespace_pb2.CreateCollectionResponse:
        """Make a collection."""
        if not request.collection_name.strip():
            raise InvalidArgument.field("collection_name", "must not be blank", "string.blank")
        self._files.check_metadata(request.metadata)
        collection = namespace_pb2.Collection(collection_name=request.collection_name, metadata=request.metadata)
        made, new = await self._add(caller, collection)
        if not new:
            raise Conflict(f"the collection {request.collection_name!r} exists already")
        return namespace_pb2.CreateCollectionResponse(collection=made)

    async def list(
        self, caller: Caller, request: namespace_pb2.ListCollectionsRequest
    ) -> namespace_pb2.ListCollectionsResponse:
        """List collections by name, each with the number of its assets."""
        offset, size = page_of(request.page, request.page_size)
        every = sorted(self._all(caller.tenant), key=lambda each: each.collection_name)
        page = await self._counted(caller.tenant, every[offset : offset + size])
        return namespace_pb2.ListCollectionsResponse(results=page, pagination=pagination(len(every), offset, size))

    async def get(
        self, caller: Caller, request: namespace_pb2.GetCollectionRequest
    ) -> namespace_pb2.GetCollectionResponse:
        """Read a collection."""
        found = self._find(caller.tenant, request.collection, "collection")
        return namespace_pb2.GetCollectionResponse(result=(await self._counted(caller.tenant, [found]))[0])

    async def update(
        self, caller: Caller, request: namespace_pb2.UpdateCollectionRequest
    ) -> namespace_pb2.UpdateCollectionResponse:
        """Rename a collection, or replace its metadata."""
        tenant = caller.tenant
        changed = namespace_pb2.Collection()
        changed.CopyFrom(self._find(tenant, request.collection, "collection"))
        if request.HasField("collection_name") and request.collection_name != changed.collection_name:
            if not request.collection_name.strip():
                raise InvalidArgument.field("collection_name", "must not be blank", "string.blank")
            if self._named(tenant, request.collection_name):
                raise Conflict(f"the collection {request.collection_name!r} exists already")
            changed.collection_name = request.collection_name
        if request.HasField("metadata"):
            self._files.check_metadata(request.metadata)
            changed.metadata.CopyFrom(request.metadata)
        changed.last_updated.CopyFrom(now())
        key = tenant.key(changed.collection_id)
        try:
            revision = (await self._bucket.get(key)).revision
            revision = await self._bucket.update(key, changed.SerializeToString(), last=revision)
        except (KeyNotFoundError, KeyWrongLastSequenceError):
            raise Conflict("the collection is being changed by somebody else; try again") from None
        await self._mirror.seen(revision)
        return namespace_pb2.UpdateCollectionResponse(result=(await self._counted(tenant, [changed]))[0])

    async def delete(
        self, caller: Caller, request: namespace_pb2.DeleteCollectionRequest
    ) -> namespace_pb2.DeleteCollectionResponse:
        """Delete a collection with all its assets."""
        tenant = caller.tenant
        collection_id = self.find(tenant, request.collection, "collection")
        await self._percolator.RemoveMatches(
            engine_pb2.RemoveMatchesRequest(namespace_id=tenant.namespace_id, collection_id=collection_id)
        )
        removed = await self._embedder.RemoveCollection(
            embedder_pb2.RemoveCollectionRequest(namespace_id=tenant.namespace_id, collection_id=collection_id)
        )
        # Last: should anything fail before, deleting it can be called again.
        await self._bucket.delete(tenant.key(collection_id))
        await self._mirror.gone(tenant.key(collection_id))
        return namespace_pb2.DeleteCollectionResponse(collection_id=collection_id, deleted=True, assets=removed.assets)

    async def forget(self, tenant: Tenant) -> None:
        """Forget all collections of a namespace that is gone."""
        for each in self._all(tenant):
            await self._bucket.delete(tenant.key(each.collection_id))
            await self._mirror.gone(tenant.key(each.collection_id))

    def _all(self, tenant: Tenant) -> Sequence[namespace_pb2.Collection]:
        return self._mirror.under(tenant.namespace_id + ".")

    def _find(self, tenant: Tenant, name_or_id: str, path: str) -> namespace_pb2.Collection:
        found = self._mirror.get(f"{tenant.namespace_id}.{name_or_id}") or self._named(tenant, name_or_id)
        if found is None:
            raise NotFound(f"{path}: no collection {name_or_id[:80]!r} in this namespace")
        return found

    def _named(self, tenant: Tenant, name: str) -> namespace_pb2.Collection | None:
        # Mostly the id is made of the name; one that was renamed kept its id.
        likely = self._mirror.get(f"{tenant.namespace_id}.{tenant.collection_id(name)}")
        if likely is not None and likely.collection_name == name:
            return likely
        return next((each for each in self._all(tenant) if each.collection_name == name), None)

    async def _counted(
        self, tenant: Tenant, collections: Sequence[namespace_pb2.Collection]
    ) -> Sequence[namespace_pb2.Collection]:
        """Copies with the number of their assets and bytes."""
        if not collections:
            return []
        answer = await self._embedder.CountAssets(
            embedder_pb2.CountAssetsRequest(
                namespace_id=tenant.namespace_id, collection_ids=[each.collection_id for each in collections]
            )
        )
        counted = []
        for each in collections:
            shown = namespace_pb2.Collection()
            shown.CopyFrom(each)
            shown.count = answer.counts[each.collection_id]
            shown.size_bytes = answer.size_bytes[each.collection_id]
            counted.append(shown)
        return counted

    async def _add(self, caller: Caller, collection: namespace_pb2.Collection) -> tuple[namespace_pb2.Collection, bool]:
        """Store a new collection; the one of that name, and False, when there is one."""
        tenant, limits = caller.tenant, caller.namespace.limits
        if known := self._named(tenant, collection.collection_name):
            return known, False
        most = limits.collections_max if limits.HasField("collections_max") else self._settings.collections_max
        if len(self._all(tenant)) >= most:
            raise QuotaExceeded(f"this namespace has {most} collections, as many as it may")
        collection.collection_id = tenant.collection_id(collection.collection_name)
        if self._mirror.get(tenant.key(collection.collection_id)):
            # The id of this name belongs to one that was renamed.
            collection.collection_id = tenant.collection_id(str(uuid.uuid4()))
        collection.namespace_id = tenant.namespace_id
        collection.last_updated.CopyFrom(now())
        try:
            revision = await self._bucket.create(tenant.key(collection.collection_id), collection.SerializeToString())
        except KeyWrongLastSequenceError:
            return collection, False
        await self._mirror.seen(revision)
        return collection, True
