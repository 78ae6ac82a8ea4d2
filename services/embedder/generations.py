"""Which model each index of a namespace is searched by, and which models new vectors are made with.

A generation is the vectors of one index and model version. Where they are kept, `store` knows; how one is built,
`reembed`.
"""

from __future__ import annotations

from lensmesh.v1 import common_pb2, embedder_pb2, namespace_pb2
from lensmesh.v1 import pipeline_pb2 as pipeline
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from services.embedder.vectors import Index, Vectors
from services.mesh.bus import topology
from services.mesh.bus.mirror import Mirror
from services.mesh.bus.topology import Bus
from services.mesh.errors import Conflict
from services.mesh.json_names import enum_names
from services.mesh.tenancy import Tenant


class Generations:
    """The generations of every namespace, in memory and followed."""

    def __init__(self, bus: Bus, bucket: KeyValue, vectors: Vectors) -> None:
        self._bucket = bucket
        self._vectors = vectors
        self._mirror = Mirror(bus, topology.GENERATIONS, pipeline.IndexGeneration)

    @classmethod
    async def open(cls, bus: Bus, vectors: Vectors) -> Generations:
        """Load all, and go on following them."""
        generations = cls(bus, await bus.bucket(topology.GENERATIONS), vectors)
        await generations._mirror.start()
        return generations

    @property
    def indexes(self) -> tuple[Index, ...]:
        """The indexes that there may be."""
        return self._vectors.indexes

    async def close(self) -> None:
        """Follow no more."""
        await self._mirror.stop()

    async def ping(self) -> None:
        """Raise unless the generations are loaded and followed."""
        await self._mirror.ping()

    def active(self, tenant: Tenant, index: Index) -> str:
        """The model version that searches use: until something is written, the one in use now."""
        known = self._mirror.get(_key(tenant, index))
        return known.active_version if known else self._vectors.version(index)

    def lasting(self, tenant: Tenant, index: Index) -> str:
        """The version that every new asset has vectors of, now and after a switch that is being prepared."""
        return self.written(tenant, index)[-1]

    def written(self, tenant: Tenant, index: Index) -> list[str]:
        """The versions that new vectors are made of, the active one first if its model is still served."""
        newest, active = self._vectors.version(index), self.active(tenant, index)
        if active == newest or not self._vectors.serves(index, active):
            return [newest]
        known = self._mirror.get(_key(tenant, index))
        building = known is not None and known.building_version == newest
        return [active, newest] if building else [active]

    def alive(self, tenant: Tenant, index: Index) -> set[str]:
        """The versions that rows may be of."""
        return {self.active(tenant, index), *self.written(tenant, index)}

    async def founded(self, tenant: Tenant, index: Index) -> None:
        """Record the version of an index that is written to for the first time, before anything is written."""
        if self._mirror.get(_key(tenant, index)) is None:
            first = pipeline.IndexGeneration(active_version=self._vectors.version(index))
            try:
                revision = await self._bucket.create(_key(tenant, index), first.SerializeToString())
            except KeyWrongLastSequenceError:
                revision = (await self._bucket.get(_key(tenant, index))).revision or 0
            await self._mirror.seen(revision)

    async def forget(self, tenant: Tenant) -> None:
        """Forget the versions of a namespace that is gone."""
        for index in self.indexes:
            if self._mirror.get(_key(tenant, index)) is not None:
                await self._bucket.delete(_key(tenant, index))

    async def build(self, tenant: Tenant, index: Index) -> None:
        """From when this returns, everything that is written has vectors of the model in use now, too."""
        await self._change(tenant, index, building=True)

    async def switch(self, tenant: Tenant, index: Index) -> str:
        """From when this returns, searches use the model in use now; returns the version that they used.

        Raises:
            Conflict: the vectors of that model are not being made.
        """
        return await self._change(tenant, index, building=False)

    async def _change(self, tenant: Tenant, index: Index, *, building: bool) -> str:
        key, newest = _key(tenant, index), self._vectors.version(index)
        try:
            entry = await self._bucket.get(key)
        except KeyNotFoundError:
            return newest
        record = pipeline.IndexGeneration.FromString(entry.value or b"")
        before = record.active_version
        if before == newest:
            return before
        if building:
            record.building_version = newest
        elif record.building_version != newest:
            raise Conflict(f"the index {_name(index)!r} can't be switched: its new vectors are not being made")
        else:
            record.active_version, record.building_version = newest, ""
        try:
            revision = await self._bucket.update(key, record.SerializeToString(), entry.revision)
        except KeyWrongLastSequenceError:
            raise Conflict(f"the index {_name(index)!r} is being changed by somebody else; try again") from None
        await self._mirror.seen(revision)
        return before

    def kinds(self, tenant: Tenant) -> dict[str, namespace_pb2.VectorIndexKind]:
        """What each index holds, by its name in JSON."""
        kinds = {}
        for index in self.indexes:
            newest, active = self._vectors.version(index), self.active(tenant, index)
            kind = self._vectors.kind(index, active)
            if active != newest:
                kind.next_model_version = newest
            kinds[_name(index)] = kind
        return kinds

    def lasting_kinds(self, tenant: Tenant) -> dict[str, namespace_pb2.VectorIndexKind]:
        """What every new asset gets in each index, by the index's name in JSON."""
        return {_name(index): self._vectors.kind(index, self.lasting(tenant, index)) for index in self.indexes}

    def lacking(
        self, tenant: Tenant, vectors: list[embedder_pb2.NamedVector]
    ) -> list[tuple[embedder_pb2.NamedVector, str]]:
        """For which of an asset's vectors which versions are missing that new assets have."""
        have = {(each.embedded.vector_index, each.field_name, each.embedded.model_version) for each in vectors}
        missing: dict[tuple[int, str, str], tuple[embedder_pb2.NamedVector, str]] = {}
        for each in vectors:
            index = each.embedded.vector_index
            for version in self.written(tenant, index):
                if (index, each.field_name, version) not in have:
                    missing[(index, each.field_name, version)] = (each, version)
        return list(missing.values())


def _name(index: Index) -> str:
    return enum_names(common_pb2.VectorIndex.DESCRIPTOR)[index]


def _key(tenant: Tenant, index: Index) -> str:
    return tenant.key(_name(index))
