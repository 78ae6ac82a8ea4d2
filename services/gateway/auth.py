"""Who is calling: from a bearer key to a principal, and from X-Namespace to the one namespace that the call may touch.

Keys are kept as SHA-256: they are random, 256 bits, so that nothing slower is needed.
"""

from __future__ import annotations

import hashlib
import secrets
import time
import uuid
from collections.abc import Callable
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
from services.mesh.tenancy import Tenant, derived_id, namespace_id

ALL_NAMESPACES = "*"
DEFAULT_NAMESPACE = "default"
_DEFAULT_NAMESPACE_ID = namespace_id(DEFAULT_NAMESPACE)
# Whose the key of the settings is. No mail ever goes there (RFC 2606).
BOOTSTRAP_EMAIL = "bootstrap@lensmesh.invalid"
# Characters of a key that are shown to recognise it by, of 46: the others hold 225 bits.
_PREFIX_CHARS = 8
# Writers of one key at a time are few.
_CHANGE_ATTEMPTS_MAX = 20
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
    # What the key is kept under.
    key_id: str

    @property
    def tenant(self) -> Tenant:
        """The namespace that everything of this call belongs to."""
        return Tenant(self.namespace.namespace_id)

    @property
    def key_hash(self) -> str:
        """The SHA-256 of the key."""
        return self.key.key_hash or self.key_id

    @property
    def usage_id(self) -> str:
        """What the key's usage is counted under."""
        return usage_id(self.key_id, self.key)

    @property
    def is_admin(self) -> bool:
        """Whether the key may do everything in its namespaces."""
        return namespace_pb2.PERMISSION_ADMIN in self.key.permissions

    def may_see(self, record: pipeline.KeyRecord) -> bool:
        """Whether the caller may know of another key: one of no namespace that the caller's may not use."""
        return bool(record.namespace_ids) and all(map(self.may_use, record.namespace_ids))

    def may_use(self, namespace: str) -> bool:
        """Whether the key may use a namespace, given by its id."""
        return ALL_NAMESPACES in self.key.namespace_ids or namespace in self.key.namespace_ids


def hash_key(api_key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(api_key.encode()).hexdigest()


def new_key() -> str:
    """A random API key."""
    return f"lm_{secrets.token_urlsafe(32)}"


def prefix_of(api_key: str) -> str:
    """The part of a key that is shown later."""
    return api_key[:_PREFIX_CHARS] if len(api_key) > 4 * _PREFIX_CHARS else ""


def usage_id(key_id: str, record: pipeline.KeyRecord) -> str:
    """What a key's usage is counted under."""
    return record.usage_id or key_id


def is_root(record: pipeline.KeyRecord) -> bool:
    """Whether a key may do everything, everywhere, now and for good."""
    everywhere = ALL_NAMESPACES in record.namespace_ids
    admin = namespace_pb2.PERMISSION_ADMIN in record.permissions
    return everywhere and admin and not record.disabled and not record.HasField("expires_at")


class Directory:
    """The keys and namespaces, in memory and followed."""

    def __init__(self, bus: Bus, keys: KeyValue, namespaces: KeyValue) -> None:
        self._key_bucket = keys
        self._namespace_bucket = namespaces
        self._keys = Mirror(bus, topology.KEYS, pipeline.KeyRecord, on_change=self._index_key)
        # Keys are kept under ids, so that no two of a user have one name, and looked for by their hashes.
        self._key_ids: dict[str, str] = {}
        self._key_hashes: dict[str, str] = {}
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
        key_id = self._key_ids.get(hash_key(api_key.strip()), "")
        key = self._keys.get(key_id)
        if key is None:
            raise Unauthenticated("this API key is not known")
        if key.disabled:
            raise Unauthenticated("this API key is disabled; an administrator can enable it again")
        if key.HasField("expires_at") and key.expires_at.ToNanoseconds() <= time.time_ns():
            raise Unauthenticated(f"this API key expired at {key.expires_at.ToJsonString()}")
        if needs not in key.permissions and namespace_pb2.PERMISSION_ADMIN not in key.permissions:
            name = namespace_pb2.Permission.Name(needs).removeprefix("PERMISSION_").lower()  # type: ignore[arg-type]
            raise PermissionDenied(f"this API key has not the permission {name!r}")
        first = _DEFAULT_NAMESPACE_ID if key.namespace_ids[0] == ALL_NAMESPACES else key.namespace_ids[0]
        found = self.namespace(namespace or first)
        if found.deleting:
            raise NotFound(f"the namespace {found.namespace_name!r} is being deleted")
        caller = Caller(key, found, key_id)
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
        for key_id, record in self.keys().items():
            left = [each for each in record.namespace_ids if each != namespace]
            if not left:
                await self.remove_key(key_id)
            elif len(left) < len(record.namespace_ids):
                await self.change_key(key_id, lambda changed: changed.namespace_ids.remove(namespace))
        await self._namespace_bucket.delete(namespace)
        await self._namespaces.gone(namespace)

    def keys(self) -> dict[str, pipeline.KeyRecord]:
        """All keys by their ids."""
        return {key_id: record for key_id in self._key_hashes if (record := self._keys.get(key_id))}

    async def add_key(self, record: pipeline.KeyRecord) -> bool:
        """Store a new key under its user and name; False when there is one already."""
        if any((each.email, each.key_name) == (record.email, record.key_name) for each in self.keys().values()):
            return False
        return await self._store_key(derived_id("key", record.email, record.key_name), record)

    async def change_key(self, key_id: str, mutate: Callable[[pipeline.KeyRecord], None]) -> pipeline.KeyRecord:
        """Change a key by compare-and-set; returns it as it is then.

        Raises:
            NotFound: it is gone.
        """
        for _ in range(_CHANGE_ATTEMPTS_MAX):
            try:
                entry = await self._key_bucket.get(key_id)
            except KeyNotFoundError:
                raise NotFound("this API key was deleted meanwhile") from None
            record = pipeline.KeyRecord.FromString(entry.value or b"")
            mutate(record)
            try:
                revision = await self._key_bucket.update(key_id, record.SerializeToString(), last=entry.revision)
            except KeyWrongLastSequenceError:
                continue
            await self._keys.seen(revision)
            return record
        raise Conflict("this API key is being changed by too many at once; try again")

    async def remove_key(self, key_id: str) -> None:
        """Delete a key: when this returns, it is refused."""
        await self._key_bucket.delete(key_id)
        await self._keys.gone(key_id)

    async def _store_key(self, key_id: str, record: pipeline.KeyRecord) -> bool:
        try:
            revision = await self._key_bucket.create(key_id, record.SerializeToString())
        except KeyWrongLastSequenceError:
            return False
        await self._keys.seen(revision)
        return True

    def _index_key(self, key_id: str, record: pipeline.KeyRecord | None) -> None:
        before = self._key_hashes.pop(key_id, None)
        if before is not None and self._key_ids.get(before) == key_id:
            del self._key_ids[before]
        if record is not None:
            key_hash = record.key_hash or key_id
            self._key_hashes[key_id] = key_hash
            self._key_ids[key_hash] = key_id

    async def bootstrap(self, api_key: str) -> None:
        """Make sure that the default namespace exists, and the given key with every permission."""
        await self.add_namespace(
            namespace_pb2.Namespace(
                namespace_id=_DEFAULT_NAMESPACE_ID,
                namespace_name=DEFAULT_NAMESPACE,
                vector_indexes=ALL_INDEXES,
            )
        )
        # Under its own hash, so that it is made once, though it may have been given another secret since.
        key_hash = hash_key(api_key)
        if api_key and self._keys.get(key_hash) is None and key_hash not in self._key_ids:
            record = pipeline.KeyRecord(
                key_name=f"bootstrap-{key_hash[:_PREFIX_CHARS]}",
                email=BOOTSTRAP_EMAIL,
                namespace_ids=[ALL_NAMESPACES],
                permissions=[
                    namespace_pb2.PERMISSION_READ,
                    namespace_pb2.PERMISSION_WRITE,
                    namespace_pb2.PERMISSION_ADMIN,
                ],
                created_at=now(),
                key_hash=key_hash,
                prefix=prefix_of(api_key),
                usage_id=uuid.uuid4().hex,
            )
            await self._store_key(key_hash, record)
