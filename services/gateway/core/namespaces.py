"""Namespaces."""

from __future__ import annotations

import uuid

from lensmesh.v1 import (
    embedder_pb2,
    embedder_pb2_grpc,
    engine_pb2,
    engine_pb2_grpc,
    namespace_pb2,
    vision_pb2,
    vision_pb2_grpc,
)

from services.gateway.auth import DEFAULT_NAMESPACE, Caller, Directory
from services.gateway.core.collections import Collections
from services.mesh.blobs import BlobStore
from services.mesh.bus.tasks import TaskStore
from services.mesh.errors import Conflict, InvalidArgument, PermissionDenied
from services.mesh.tenancy import Tenant, namespace_id

_PAYLOAD_TYPES = ("keyword", "integer", "float", "bool", "geo", "datetime", "text", "uuid")


class Namespaces:
    """Makes, reads, changes and deletes namespaces."""

    def __init__(
        self,
        directory: Directory,
        vision: vision_pb2_grpc.VisionServiceAsyncStub,
        embedder: embedder_pb2_grpc.EmbedderServiceAsyncStub,
        percolator: engine_pb2_grpc.PercolatorEngineServiceAsyncStub,
        collections: Collections,
        tasks: TaskStore,
        blobs: BlobStore,
    ) -> None:
        self._directory = directory
        self._vision = vision
        self._embedder = embedder
        self._percolator = percolator
        self._collections = collections
        self._tasks = tasks
        self._blobs = blobs

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
            limits=request.limits if request.HasField("limits") else None,
        )
        taken = Conflict(f"the namespace {request.namespace_name!r} exists already")
        if self._directory.is_known(request.namespace_name):
            raise taken
        if self._directory.is_known(namespace.namespace_id):
            # The id of this name belongs to one that was renamed.
            namespace.namespace_id = namespace_id(str(uuid.uuid4()))
        if not await self._directory.add_namespace(namespace):
            raise taken
        return namespace_pb2.CreateNamespaceResponse(namespace=namespace)

    async def list(
        self, caller: Caller, request: namespace_pb2.ListNamespacesRequest
    ) -> namespace_pb2.ListNamespacesResponse:
        """List the caller's namespaces."""
        return namespace_pb2.ListNamespacesResponse(namespaces=self._directory.namespaces(caller))

    async def get(
        self, caller: Caller, request: namespace_pb2.GetNamespaceRequest
    ) -> namespace_pb2.GetNamespaceResponse:
        """Read a namespace."""
        return namespace_pb2.GetNamespaceResponse(result=self._usable(caller, request.namespace))

    async def update(
        self, caller: Caller, request: namespace_pb2.UpdateNamespaceRequest
    ) -> namespace_pb2.UpdateNamespaceResponse:
        """Rename a namespace, add indexes, change its payload indexes or limits."""
        changed = namespace_pb2.Namespace()
        changed.CopyFrom(self._usable(caller, request.namespace))
        name = request.namespace_name
        if name and name not in (changed.namespace_name, changed.namespace_id):
            if changed.namespace_name == DEFAULT_NAMESPACE:
                raise Conflict("the default namespace can't be renamed: keys without one of their own use it")
            if self._directory.is_known(name):
                raise Conflict(f"the namespace {name!r} exists already")
            changed.namespace_name = name
        if request.vector_indexes:
            if set(changed.vector_indexes) - set(request.vector_indexes):
                raise InvalidArgument.field(
                    "vector_indexes", "must name all indexes that there are: they can be added, not removed", "indexes"
                )
            changed.vector_indexes[:] = request.vector_indexes
        if request.payload_indexes:
            del changed.payload_indexes[:]
            changed.payload_indexes.extend(request.payload_indexes)
        if request.HasField("limits"):
            changed.limits.CopyFrom(request.limits)
        await self._directory.change_namespace(changed)
        return namespace_pb2.UpdateNamespaceResponse(result=changed)

    async def delete(
        self, caller: Caller, request: namespace_pb2.DeleteNamespaceRequest
    ) -> namespace_pb2.DeleteNamespaceResponse:
        """Delete a namespace with everything in it; called again after a break, it goes on."""
        found = self._usable(caller, request.namespace)
        if found.namespace_name == DEFAULT_NAMESPACE:
            raise Conflict("the default namespace can't be deleted: keys without one of their own use it")
        tenant = Tenant(found.namespace_id)
        if not found.deleting:
            closed = namespace_pb2.Namespace()
            closed.CopyFrom(found)
            closed.deleting = True
            # From now on nobody can use it, so nothing is added behind those who remove.
            await self._directory.change_namespace(closed)
        await self._tasks.forget(tenant)
        await self._percolator.ForgetNamespace(
            engine_pb2.PercolatorEngineServiceForgetNamespaceRequest(namespace_id=tenant.namespace_id)
        )
        await self._embedder.DropNamespace(embedder_pb2.DropNamespaceRequest(namespace_id=tenant.namespace_id))
        await self._vision.ForgetNamespace(
            vision_pb2.VisionServiceForgetNamespaceRequest(namespace_id=tenant.namespace_id)
        )
        await self._collections.forget(tenant)
        await self._blobs.drop(tenant)
        await self._directory.remove_namespace(tenant.namespace_id)
        return namespace_pb2.DeleteNamespaceResponse(namespace_id=tenant.namespace_id, deleted=True)

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

    def _usable(self, caller: Caller, name_or_id: str) -> namespace_pb2.Namespace:
        """A namespace that the caller's key may use. Raises NotFound, PermissionDenied."""
        found = self._directory.namespace(name_or_id)
        if not caller.may_use(found.namespace_id):
            raise PermissionDenied(f"this API key may not use the namespace {name_or_id[:80]!r}")
        return found
