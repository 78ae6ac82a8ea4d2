"""Namespaces and collections."""

from __future__ import annotations

from lensmesh.v1 import embedder_pb2, embedder_pb2_grpc, namespace_pb2
from nats.js.errors import KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from services.gateway.auth import Caller, Directory
from services.gateway.core.files import Files
from services.gateway.core.paging import page_of, pagination
from services.mesh.bus import topology
from services.mesh.bus.mirror import Mirror
from services.mesh.bus.tasks import now
from services.mesh.bus.topology import Bus
from services.mesh.errors import Conflict, InvalidArgument, NotFound, PermissionDenied
from services.mesh.tenancy import Tenant, namespace_id

_PAYLOAD_TYPES = ("keyword", "integer", "float", "bool", "geo", "datetime", "text", "uuid")


class Namespaces:
    """Makes and lists namespaces."""

    def __init__(self, directory: Directory, embedder: embedder_pb2_grpc.EmbedderServiceAsyncStub) -> None:
        self._directory = directory
        self._embedder = embedder

    async def create(
        self, caller: Caller, request: namespace_pb2.CreateNamespaceRequest
    ) -> namespace_pb2.CreateNamespaceResponse:
        """Make a namespace."""
        if "*" not in caller.key.namespace_ids:
            raise PermissionDenied("this API key may use given namespaces only; making one needs a key for all")
        namespace = namespace_pb2.Namespace(
            namespace_id=namespace_id(request.namespace_name),
            namespace_name=request.namespace_name,
            vector_indexes=request.vector_indexes,
            payload_indexes=request.payload_indexes,
        )
        if not await self._directory.add_namespace(namespace):
            raise Conflict(f"the namespace {request.namespace_name!r} exists already")
        return namespace_pb2.CreateNamespaceResponse(namespace=namespace)

    async def list(
        self, caller: Caller, request: namespace_pb2.ListNamespacesRequest
    ) -> namespace_pb2.ListNamespacesResponse:
        """List the caller's namespaces."""
        return namespace_pb2.ListNamespacesResponse(namespaces=self._directory.namespaces(caller))

    async def indexes(
        self, caller: Caller, request: namespace_pb2.ListIndexesRequest
    ) -> namespace_pb2.ListIndexesResponse:
        """Say which indexes there are."""
        described = await self._embedder.DescribeIndexes(
            embedder_pb2.DescribeIndexesRequest(namespace_id=caller.tenant.namespace_id)
        )
        return namespace_pb2.ListIndexesResponse(
            vector_indexes=described.vector_indexes,
            payload_indexes=[namespace_pb2.PayloadIndexKind(type=each) for each in _PAYLOAD_TYPES],
        )


class Collections:
    """Makes, finds and lists collections, in memory and followed."""

    def __init__(
        self, bus: Bus, bucket: KeyValue, embedder: embedder_pb2_grpc.EmbedderServiceAsyncStub, files: Files
    ) -> None:
        self._files = files
        self._bucket = bucket
        self._embedder = embedder
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
        for collection_id in (name_or_id, tenant.collection_id(name_or_id)):
            if self._mirror.get(f"{tenant.namespace_id}.{collection_id}"):
                return collection_id
        raise NotFound(f"{path}: no collection {name_or_id[:80]!r} in this namespace")

    def find_all(self, tenant: Tenant, names: list[str]) -> list[str]:
        """The ids of collections given by names or ids, each once. Raises NotFound."""
        return list(dict.fromkeys(self.find(tenant, name, f"collection_ids.{i}") for i, name in enumerate(names)))

    async def find_or_create(self, tenant: Tenant, name_or_id: str, path: str) -> str:
        """The id of a collection given by name or id; a name that is not known yet becomes a collection."""
        if not name_or_id.strip():
            raise InvalidArgument.field(path, "must not be blank", "string.blank")
        try:
            return self.find(tenant, name_or_id, path)
        except NotFound:
            return (await self._add(tenant, namespace_pb2.Collection(collection_name=name_or_id)))[0].collection_id

    async def create(
        self, caller: Caller, request: namespace_pb2.CreateCollectionRequest
    ) -> namespace_pb2.CreateCollectionResponse:
        """Make a collection."""
        if not request.collection_name.strip():
            raise InvalidArgument.field("collection_name", "must not be blank", "string.blank")
        self._files.check_metadata(request.metadata)
        collection = namespace_pb2.Collection(collection_name=request.collection_name, metadata=request.metadata)
        made, new = await self._add(caller.tenant, collection)
        if not new:
            raise Conflict(f"the collection {request.collection_name!r} exists already")
        return namespace_pb2.CreateCollectionResponse(collection=made)

    async def list(
        self, caller: Caller, request: namespace_pb2.ListCollectionsRequest
    ) -> namespace_pb2.ListCollectionsResponse:
        """List collections by name, each with the number of its assets."""
        tenant = caller.tenant
        offset, size = page_of(request.page, request.page_size)
        every = sorted(self._mirror.under(tenant.namespace_id + "."), key=lambda each: each.collection_name)
        page = []
        for each in every[offset : offset + size]:
            shown = namespace_pb2.Collection()
            shown.CopyFrom(each)
            page.append(shown)
        if page:
            counts = await self._embedder.CountAssets(
                embedder_pb2.CountAssetsRequest(
                    namespace_id=tenant.namespace_id, collection_ids=[each.collection_id for each in page]
                )
            )
            for each in page:
                each.count = counts.counts[each.collection_id]
        return namespace_pb2.ListCollectionsResponse(results=page, pagination=pagination(len(every), offset, size))

    async def _add(self, tenant: Tenant, collection: namespace_pb2.Collection) -> tuple[namespace_pb2.Collection, bool]:
        collection.collection_id = tenant.collection_id(collection.collection_name)
        collection.namespace_id = tenant.namespace_id
        collection.last_updated.CopyFrom(now())
        try:
            revision = await self._bucket.create(tenant.key(collection.collection_id), collection.SerializeToString())
        except KeyWrongLastSequenceError:
            return collection, False
        await self._mirror.seen(revision)
        return collection, True
