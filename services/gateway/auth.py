"""Who is calling: from a bearer key to a principal, and from X-Namespace to the one namespace that the call may touch.

Keys are kept as SHA-256: they are random, 256 bits, so that nothing slower is needed.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from lensmesh.v1 import common_pb2, namespace_pb2
from lensmesh.v1 import pipeline_pb2 as pipeline
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from services.mesh.bus import topology
from services.mesh.bus.mirror import Mirror
from services.mesh.bus.tasks import now
from services.mesh.bus.topology import Bus
from services.mesh.errors import Conflict, NotFound, PermissionDenied, Unauthenticated
from services.mesh.tenancy import Tenant, namespace_id

ALL_NAMESPACES = "*"
DEFAULT_NAMESPACE = "default"
ALL_INDEXES = (
    common_pb2.VECTOR_INDEX_IMAGE,
    common_pb2.VECTOR_INDEX_MULTIMODAL,
    common_pb2.VECTOR_INDEX_TEXT,
    common_pb2.VECTOR_INDEX_KEYWORD,
)


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated call: whose key it is, and the namespace it is about."""

    key: pipeline.KeyRecord
    namespace: namespace_pb2.Namespace

    @property
    def tenant(self) -> Tenant:
        """The namespace that everything of this call belongs to."""
        return Tenant(self.namespace.namespace_id)

    def may_use(self, namespace: str) -> bool:
        """Whether the key may use a namespace, given by its id."""
        return ALL_NAMESPACES in self.key.namespace_ids or namespace in self.key.namespace_ids


def hash_key(api_key: str) -> str:
    """The name that a key is kept under."""
    return hashlib.sha256(api_key.encode()).hexdigest()


def new_key() -> str:
    """A random API key."""
    return f"lm_{secrets.token_urlsafe(32)}"


class Directory:
    """The keys and namespaces, in memory and followed."""

    def __init__(self, bus: Bus, keys: KeyValue, namespaces: KeyValue) -> None:
        self._key_bucket = keys
        self._namespace_bucket = namespaces
        self._keys = Mirror(bus, topology.KEYS, pipeline.KeyRecord)
        self._namespaces = Mirror(bus, topology.NAMESPACES, namespace_pb2.Namespace)

    @classmethod
    async def open(cls, bus: Bus) -> Directory:
        """Load everything, and go on following it."""
        directory = cls(bus, await bus.bucket(topology.KEYS), await bus.bucket(topology.NAMESPACES))
        await directory._keys.start()
        await directory._namespaces.start()
        return directory

    async def close(self) -> None:
        """Follow no more."""
        await self._keys.stop()
        await self._namespaces.stop()

    async def ping(self) -> None:
        """Raise unless both are loaded and followed."""
        await self._keys.ping()
        await self._namespaces.ping()

    def authenticate(self, authorization: str | None, namespace: str | None, needs: int) -> Caller:
        """The caller of a request.

        Args:
            authorization: the header of that name.
            namespace: the header X-Namespace, a name or an id; the key's first namespace when absent.
            needs: the permission that the operation asks for.

        Raises:
            Unauthenticated, PermissionDenied, NotFound: with what to do about it.
        """
        scheme, _, api_key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not api_key.strip():
            raise Unauthenticated("an API key is needed: send the header 'Authorization: Bearer <api key>'")
        key = self._keys.get(hash_key(api_key.strip()))
        if key is None:
            raise Unauthenticated("this API key is not known")
        admin = namespace_pb2.PERMISSION_ADMIN in key.permissions
        if needs not in key.permissions and not admin:
            name = namespace_pb2.Permission.Name(needs).removeprefix("PERMISSION_").lower()  # type: ignore[arg-type]
            raise PermissionDenied(f"this API key has not the permission {name!r}")
        first = namespace_id(DEFAULT_NAMESPACE) if key.namespace_ids[0] == ALL_NAMESPACES else key.namespace_ids[0]
        found = self.namespace(namespace or first)
        if found.deleting:
            raise NotFound(f"the namespace {found.namespace_name!r} is being deleted")
        caller = Caller(key, found)
        if not caller.may_use(found.namespace_id):
            raise PermissionDenied(f"this API key may not use the namespace {namespace!r}")
        return caller

    def namespace(self, name_or_id: str) -> namespace_pb2.Namespace:
        """A namespace by its name or id.

        Raises:
            NotFound: there is none.
        """
        found = self._namespaces.get(name_or_id) or self._named(name_or_id)
        if found is None:
            raise NotFound(f"no namespace {name_or_id[:80]!r}")
        return found

    def is_known(self, name_or_id: str) -> bool:
        """Whether there is a namespace of this name or id."""
        return (self._namespaces.get(name_or_id) or self._named(name_or_id)) is not None

    def _named(self, name: str) -> namespace_pb2.Namespace | None:
        # Mostly the id is made of the name; one that was renamed kept its id.
        likely = self._namespaces.get(namespace_id(name))
        if likely is not None and likely.namespace_name == name:
            return likely
        return next((each for each in self._namespaces.under("") if each.namespace_name == name), None)

    def namespaces(self, caller: Caller) -> list[namespace_pb2.Namespace]:
        """The namespaces that the caller may use, by name."""
        usable = [each for each in self._namespaces.under("") if caller.may_use(each.namespace_id)]
        return sorted(usable, key=lambda each: each.namespace_name)

    async def add_namespace(self, namespace: namespace_pb2.Namespace) -> bool:
        """Store a new namespace; False when its name is taken."""
        try:
            revision = await self._namespace_bucket.create(namespace.namespace_id, namespace.SerializeToString())
        except KeyWrongLastSequenceError:
            return False
        await self._namespaces.seen(revision)
        return True

    async def change_namespace(self, changed: namespace_pb2.Namespace) -> None:
        """Store a namespace in the place of itself.

        Raises:
            Conflict: somebody else changed it meanwhile.
        """
        known = self._namespaces.get(changed.namespace_id)
        try:
            entry = await self._namespace_bucket.get(changed.namespace_id)
            if namespace_pb2.Namespace.FromString(entry.value or b"") != known:
                raise Conflict("the namespace is being changed by somebody else; try again")
            content = changed.SerializeToString()
            revision = await self._namespace_bucket.update(changed.namespace_id, content, last=entry.revision)
        except (KeyNotFoundError, KeyWrongLastSequenceError):
            raise Conflict("the namespace is being changed by somebody else; try again") from None
        await self._namespaces.seen(revision)

    async def remove_namespace(self, namespace: str) -> None:
        """Forget a namespace, given by its id, and the keys that may use no other."""
        for name, record in self._keys.items():
            if namespace in record.namespace_ids:
                left = [each for each in record.namespace_ids if each != namespace]
                if left:
                    kept = pipeline.KeyRecord()
                    kept.CopyFrom(record)
                    kept.namespace_ids[:] = left
                    await self._key_bucket.put(name, kept.SerializeToString())
                else:
                    await self._key_bucket.delete(name)
        await self._namespace_bucket.delete(namespace)
        await self._namespaces.gone(namespace)

    async def add_key(self, api_key: str, record: pipeline.KeyRecord) -> None:
        """Store a key, hashed."""
        await self._keys.seen(await self._key_bucket.put(hash_key(api_key), record.SerializeToString()))

    async def bootstrap(self, api_key: str) -> None:
        """Make sure that the default namespace exists, and the given key with every permission."""
        await self.add_namespace(
            namespace_pb2.Namespace(
                namespace_id=namespace_id(DEFAULT_NAMESPACE),
                namespace_name=DEFAULT_NAMESPACE,
                vector_indexes=ALL_INDEXES,
            )
        )
        if api_key and self._keys.get(hash_key(api_key)) is None:
            record = pipeline.KeyRecord(
                key_name="bootstrap",
                namespace_ids=[ALL_NAMESPACES],
                permissions=[
                    namespace_pb2.PERMISSION_READ,
                    namespace_pb2.PERMISSION_WRITE,
                    namespace_pb2.PERMISSION_ADMIN,
                ],
                created_at=now(),
            )
            await self.add_key(api_key, record)
