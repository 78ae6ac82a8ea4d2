"""The core put together, and the table of its operations that both doors serve."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.descriptor import ServiceDescriptor
from lensmesh.v1 import (
    asset_pb2,
    embedder_pb2_grpc,
    engine_pb2_grpc,
    feature_pb2,
    index_pb2,
    logo_pb2,
    match_pb2,
    namespace_pb2,
    organization_pb2,
    percolator_pb2,
    task_pb2,
    vision_pb2_grpc,
)

from services.gateway.auth import Directory
from services.gateway.config import GatewaySettings
from services.gateway.core.assets import Assets
from services.gateway.core.batch import Batch
from services.gateway.core.calls import Calls, Handler, Operation
from services.gateway.core.collections import Collections
from services.gateway.core.deliveries import Deliveries
from services.gateway.core.dry_run import DryRun
from services.gateway.core.exports import Exports
from services.gateway.core.features import Features
from services.gateway.core.files import Files
from services.gateway.core.imports import Imports
from services.gateway.core.index import Index
from services.gateway.core.keys import Keys
from services.gateway.core.limits import Limits
from services.gateway.core.links import Links
from services.gateway.core.logos import Logos
from services.gateway.core.namespaces import Namespaces
from services.gateway.core.percolate import Percolate
from services.gateway.core.percolators import Percolators
from services.gateway.core.queries import Queries
from services.gateway.core.reembed import Reembed
from services.gateway.core.replays import Replays
from services.gateway.core.tasks import Tasks
from services.gateway.core.usage import UsageCounter
from services.mesh.blobs import BlobStore
from services.mesh.bus import topology
from services.mesh.bus.tasks import TaskStore
from services.mesh.bus.topology import Bus
from services.mesh.config import load
from services.mesh.outbound.config import OutboundSettings

READ = namespace_pb2.PERMISSION_READ
WRITE = namespace_pb2.PERMISSION_WRITE
ADMIN = namespace_pb2.PERMISSION_ADMIN

# The services that the gateway offers, in the order of the documentation.
PUBLIC_SERVICES: tuple[ServiceDescriptor, ...] = tuple(
    file.DESCRIPTOR.services_by_name[name]
    for file, name in (
        (index_pb2, "IndexService"),
        (task_pb2, "TaskService"),
        (asset_pb2, "AssetService"),
        (feature_pb2, "FeatureService"),
        (percolator_pb2, "PercolatorService"),
        (match_pb2, "MatchService"),
        (logo_pb2, "LogoService"),
        (namespace_pb2, "NamespaceService"),
        (namespace_pb2, "CollectionService"),
        (namespace_pb2, "KeyService"),
        (namespace_pb2, "FileService"),
        (organization_pb2, "OrganizationService"),
    )
)


@dataclass(frozen=True, slots=True)
class Core:
    """Everything the gateway can do."""

    directory: Directory
    operations: tuple[Operation, ...]
    collections: Collections
    links: Links
    calls: Calls
    usage: UsageCounter

    async def close(self) -> None:
        """Write what was counted, and follow no more."""
        await self.usage.flush()
        await self.collections.close()
        await self.directory.close()


@dataclass(frozen=True, slots=True)
class Stubs:
    """The services behind the gateway."""

    vision: vision_pb2_grpc.VisionServiceAsyncStub
    embedder: embedder_pb2_grpc.EmbedderServiceAsyncStub
    percolator: engine_pb2_grpc.PercolatorEngineServiceAsyncStub


async def build_core(bus: Bus, tasks: TaskStore, blobs: BlobStore, stubs: Stubs, settings: GatewaySettings) -> Core:
    """Load what is kept in memory, make sure that the first key exists, and connect the parts."""
    directory = await Directory.open(bus)
    await directory.bootstrap(settings.bootstrap_key.get_secret_value())
    files = Files(blobs, settings)
    collections = Collections(
        bus, await bus.bucket(topology.COLLECTIONS), stubs.embedder, stubs.percolator, files, settings
    )
    await collections.start()
    links = await Links.open(bus, stubs.embedder, blobs, settings)
    queries = Queries(stubs.vision, stubs.embedder, files)
    index = Index(tasks, collections, files, stubs.embedder, settings)
    assets = Assets(stubs.embedder, stubs.percolator, collections, files, links)
    features = Features(stubs.embedder, queries, collections, files, links)
    deliveries = Deliveries(stubs.percolator, load(OutboundSettings))
    percolators = Percolators(stubs.percolator, queries, collections, files, deliveries, settings)
    imports = Imports(stubs.percolator, stubs.embedder, queries, collections, files, deliveries, settings)
    percolate = Percolate(stubs.percolator, stubs.embedder, queries, collections, files)
    namespaces = Namespaces(directory, stubs.vision, stubs.embedder, stubs.percolator, collections, tasks, blobs)
    state = Tasks(tasks, collections)
    usage = UsageCounter(bus, await bus.bucket(topology.USAGE))
    keys = Keys(directory, usage)
    logos = Logos(stubs.vision, files)
    table: dict[str, tuple[int, Handler]] = {
        "IndexService.IndexImage": (WRITE, index.index_image),
        "IndexService.IndexUpload": (WRITE, index.index_upload),
        "IndexService.IndexText": (WRITE, index.index_text),
        "IndexService.IndexBatch": (WRITE, Batch(index).index),
        "TaskService.GetTask": (READ, state.get),
        "TaskService.ListTasks": (READ, state.list),
        "TaskService.WatchTask": (READ, state.watch),
        "TaskService.CancelTask": (WRITE, state.cancel),
        "AssetService.GetAsset": (READ, assets.get),
        "AssetService.GetAssetFeatures": (READ, assets.get_features),
        "AssetService.FindNearDuplicates": (READ, assets.find_near_duplicates),
        "AssetService.ListAssets": (READ, assets.list),
        "AssetService.SearchAssets": (READ, assets.search),
        "AssetService.ReplaceAsset": (WRITE, assets.replace),
        "AssetService.UpdateAsset": (WRITE, assets.update),
        "AssetService.DeleteAsset": (WRITE, assets.delete),
        "FeatureService.SearchFeatures": (READ, features.search),
        "FeatureService.ListFeatures": (READ, features.list),
        "FeatureService.EmbedFeature": (READ, features.embed),
        "FeatureService.GetFeature": (READ, features.get),
        "FeatureService.UpdateFeature": (WRITE, features.update),
        "FeatureService.DeleteFeature": (WRITE, features.delete),
        "PercolatorService.CreateStoredQuery": (WRITE, percolators.create),
        "PercolatorService.ListStoredQueries": (READ, percolators.list),
        "PercolatorService.GetStoredQuery": (READ, percolators.get),
        "PercolatorService.ReplaceStoredQuery": (WRITE, percolators.replace),
        "PercolatorService.UpdateStoredQuery": (WRITE, percolators.update),
        "PercolatorService.DeleteStoredQuery": (WRITE, percolators.delete),
        "PercolatorService.ImportStoredQueries": (WRITE, imports.run),
        "PercolatorService.ExportStoredQueries": (READ, Exports(stubs.percolator, queries).run),
        "PercolatorService.DryRunStoredQuery": (READ, DryRun(stubs.percolator, stubs.embedder, settings).run),
        "PercolatorService.Percolate": (READ, percolate.run),
        "PercolatorService.RedeliverMatches": (WRITE, deliveries.redeliver),
        "MatchService.ListMatches": (READ, percolators.matches),
        "MatchService.DeleteMatch": (WRITE, percolators.delete_match),
        "MatchService.WatchMatches": (READ, percolators.watch),
        "LogoService.CreateLogo": (WRITE, logos.create),
        "LogoService.ListLogos": (READ, logos.list),
        "LogoService.GetLogo": (READ, logos.get),
        "LogoService.DeleteLogo": (WRITE, logos.delete),
        "NamespaceService.CreateNamespace": (ADMIN, namespaces.create),
        "NamespaceService.ListNamespaces": (READ, namespaces.list),
        "NamespaceService.GetNamespace": (READ, namespaces.get),
        "NamespaceService.UpdateNamespace": (ADMIN, namespaces.update),
        "NamespaceService.DeleteNamespace": (ADMIN, namespaces.delete),
        "NamespaceService.ListIndexes": (READ, namespaces.indexes),
        "NamespaceService.Reembed": (ADMIN, Reembed(stubs.embedder, stubs.percolator, queries).run),
        "CollectionService.CreateCollection": (WRITE, collections.create),
        "CollectionService.ListCollections": (READ, collections.list),
        "CollectionService.GetCollection": (READ, collections.get),
        "CollectionService.UpdateCollection": (WRITE, collections.update),
        "CollectionService.DeleteCollection": (WRITE, collections.delete),
        "KeyService.CreateKey": (ADMIN, keys.create),
        "KeyService.ListKeys": (ADMIN, keys.list),
        "KeyService.UpdateKey": (ADMIN, keys.update),
        "KeyService.RotateKey": (ADMIN, keys.rotate),
        "KeyService.DeleteKey": (ADMIN, keys.delete),
        "OrganizationService.GetOrganization": (ADMIN, keys.organization),
        "OrganizationService.GetUser": (ADMIN, keys.user),
        "OrganizationService.DeleteUser": (ADMIN, keys.delete_user),
        "OrganizationService.GetUsage": (READ, keys.usage),
        "FileService.UploadFile": (WRITE, files.upload),
    }
    operations = tuple(
        Operation(method, *table[f"{service.name}.{method.name}"])
        for service in PUBLIC_SERVICES
        for method in service.methods
    )
    replays = Replays(await bus.bucket(topology.IDEMPOTENCY))
    calls = Calls(directory, Limits(settings.requests_per_minute), usage, replays)
    return Core(directory, operations, collections, links, calls, usage)
