"""API keys, the users they belong to, and what they used.

A caller sees, changes and makes keys of namespaces that its own key may use, and knows nothing of others. Its own key
has the permission admin, which holds all others, so that no key is given more than it has.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from lensmesh.v1 import namespace_pb2, organization_pb2
from lensmesh.v1 import pipeline_pb2 as pipeline

from services.gateway.auth import (
    ALL_NAMESPACES,
    BOOTSTRAP_EMAIL,
    Caller,
    Directory,
    hash_key,
    is_root,
    new_key,
    prefix_of,
    usage_id,
)
from services.gateway.core.paging import page_of, pagination
from services.gateway.core.usage import UsageCounter
from services.mesh.bus.tasks import now
from services.mesh.errors import Conflict, NotFound, PermissionDenied
from services.mesh.tenancy import derived_id

# There is one organization a mesh.
ORGANIZATION = "lensmesh"


class Keys:
    """Makes, lists, changes and deletes keys."""

    def __init__(self, directory: Directory, usage: UsageCounter) -> None:
        self._directory = directory
        self._usage = usage

    async def create(self, caller: Caller, request: namespace_pb2.CreateKeyRequest) -> namespace_pb2.CreateKeyResponse:
        """Make a key that may do no more than the caller's."""
        api_key = new_key()
        record = pipeline.KeyRecord(
            key_name=request.key_name or "default",
            email=request.email,
            namespace_ids=self._namespace_ids(caller, request.namespaces),
            permissions=request.permissions or [namespace_pb2.PERMISSION_READ, namespace_pb2.PERMISSION_WRITE],
            created_at=now(),
            key_hash=hash_key(api_key),
            prefix=prefix_of(api_key),
            expires_at=request.expires_at if request.HasField("expires_at") else None,
            requests_per_minute=request.requests_per_minute,
            usage_id=uuid.uuid4().hex,
        )
        if not await self._directory.add_key(record):
            raise Conflict(f"{request.email} has an API key {record.key_name!r} already; give it another key_name")
        shown = _shown(record)
        return namespace_pb2.CreateKeyResponse(
            api_key=api_key,
            key=api_key,
            key_name=record.key_name,
            name=record.key_name,
            namespaces=record.namespace_ids,
            permissions=record.permissions,
            created_at=record.created_at,
            expires_at=shown.expires_at if shown.HasField("expires_at") else None,
            requests_per_minute=shown.requests_per_minute if shown.HasField("requests_per_minute") else None,
        )

    async def list(self, caller: Caller, request: namespace_pb2.ListKeysRequest) -> namespace_pb2.ListKeysResponse:
        """List a user's keys by name."""
        records = self._of_user(caller, request.email)
        offset, size = page_of(request.page, request.page_size)
        return namespace_pb2.ListKeysResponse(
            results=[_shown(each) for each in list(records.values())[offset : offset + size]],
            pagination=pagination(len(records), offset, size),
        )

    async def update(self, caller: Caller, request: namespace_pb2.UpdateKeyRequest) -> namespace_pb2.UpdateKeyResponse:
        """Change a key; renaming makes it anew under its new name, with everything it has."""
        key_id, before = self._find(caller, request.email, request.key_name)

        def mutate(record: pipeline.KeyRecord) -> None:
            if request.permissions:
                del record.permissions[:]
                record.permissions.extend(dict.fromkeys(request.permissions))
            if request.HasField("disabled"):
                record.disabled = request.disabled
            if request.HasField("expires_at"):
                record.expires_at.CopyFrom(request.expires_at)
            if request.HasField("requests_per_minute"):
                record.requests_per_minute = request.requests_per_minute

        new_name = request.name if request.HasField("name") and request.name != request.key_name else None
        if new_name and (before.email, new_name) in {(e.email, e.key_name) for e in self._directory.keys().values()}:
            raise Conflict(f"{request.email} has an API key {new_name!r} already")
        after = _copy(before)
        mutate(after)
        if not is_root(after):
            self._keep_one_root({key_id})
        changed = await self._directory.change_key(key_id, mutate)
        if new_name:
            changed = await self._rename(key_id, changed, new_name)
        return namespace_pb2.UpdateKeyResponse(api_key=_shown(changed))

    async def rotate(self, caller: Caller, request: namespace_pb2.RotateKeyRequest) -> namespace_pb2.RotateKeyResponse:
        """Give a key a new secret: when this returns, the old one is refused."""
        key_id, _ = self._find(caller, request.email, request.key_name)
        api_key = new_key()

        def mutate(record: pipeline.KeyRecord) -> None:
            record.key_hash, record.prefix = hash_key(api_key), prefix_of(api_key)

        shown = _shown(await self._directory.change_key(key_id, mutate))
        shown.key = api_key
        return namespace_pb2.RotateKeyResponse(api_key=shown)

    async def delete(self, caller: Caller, request: namespace_pb2.DeleteKeyRequest) -> namespace_pb2.DeleteKeyResponse:
        """Delete a key."""
        key_id, _ = self._find(caller, request.email, request.key_name)
        self._keep_one_root({key_id})
        await self._directory.remove_key(key_id)
        return namespace_pb2.DeleteKeyResponse(key_name=request.key_name, deleted=True)

    async def organization(
        self, caller: Caller, request: organization_pb2.GetOrganizationRequest
    ) -> organization_pb2.GetOrganizationResponse:
        """Read the organization."""
        emails = {_email(each) for each in self._directory.keys().values() if caller.may_see(each)}
        organization = organization_pb2.Organization(
            organization_name=ORGANIZATION,
            organization_id=derived_id("org", ORGANIZATION),
            users=[self._user(caller, email) for email in sorted(emails)],
        )
        return organization_pb2.GetOrganizationResponse(organization=organization)

    async def user(self, caller: Caller, request: organization_pb2.GetUserRequest) -> organization_pb2.GetUserResponse:
        """Read a user."""
        return organization_pb2.GetUserResponse(user=self._user(caller, request.email))

    async def delete_user(
        self, caller: Caller, request: organization_pb2.DeleteUserRequest
    ) -> organization_pb2.DeleteUserResponse:
        """Delete those of a user's keys that the caller may see."""
        key_ids = self._of_user(caller, request.email).keys()
        self._keep_one_root(set(key_ids))
        for key_id in key_ids:
            await self._directory.remove_key(key_id)
        return organization_pb2.DeleteUserResponse(email=request.email, deleted=True)

    async def usage(
        self, caller: Caller, request: organization_pb2.GetUsageRequest
    ) -> organization_pb2.GetUsageResponse:
        """What was used by the keys that the caller may see."""
        seen: set[str] | None = {caller.usage_id}
        if caller.is_admin and caller.may_use(ALL_NAMESPACES):
            # Those of keys that are gone, too.
            seen = None
        elif caller.is_admin:
            seen = {usage_id(key_id, each) for key_id, each in self._directory.keys().items() if caller.may_see(each)}
        return organization_pb2.GetUsageResponse(usage=await self._usage.used(seen))

    def _namespace_ids(self, caller: Caller, names: Sequence[str]) -> Sequence[str]:
        if list(names) == [ALL_NAMESPACES] and caller.may_use(ALL_NAMESPACES):
            return names
        names = names or [caller.namespace.namespace_id]
        ids = [self._directory.namespace(name).namespace_id for name in names]
        for name, each in zip(names, ids, strict=True):
            if not caller.may_use(each):
                raise PermissionDenied(f"this API key may not use the namespace {name!r}")
        return ids

    def _of_user(self, caller: Caller, email: str) -> dict[str, pipeline.KeyRecord]:
        every = sorted(self._directory.keys().items(), key=lambda item: item[1].key_name)
        found = {key_id: each for key_id, each in every if _email(each) == email and caller.may_see(each)}
        if not found:
            raise NotFound(f"no user {email!r} with keys that this API key may see")
        return found

    def _find(self, caller: Caller, email: str, key_name: str) -> tuple[str, pipeline.KeyRecord]:
        for key_id, record in self._directory.keys().items():
            if (_email(record), record.key_name) == (email, key_name) and caller.may_see(record):
                return key_id, record
        raise NotFound(f"no API key {key_name!r} of {email!r} that this API key may see")

    def _user(self, caller: Caller, email: str) -> organization_pb2.User:
        records = list(self._of_user(caller, email).values())
        oldest = min(records, key=lambda each: each.created_at.ToNanoseconds())
        return organization_pb2.User(
            email=email,
            user_id=derived_id("usr", email),
            api_keys=map(_shown, records),
            created_at=oldest.created_at,
        )

    async def _rename(self, key_id: str, record: pipeline.KeyRecord, name: str) -> pipeline.KeyRecord:
        renamed = _copy(record)
        renamed.key_name, renamed.email = name, _email(record)
        renamed.key_hash = record.key_hash or key_id
        renamed.usage_id = usage_id(key_id, record)
        if not await self._directory.add_key(renamed):
            raise Conflict(f"{renamed.email} has an API key {name!r} already")
        await self._directory.remove_key(key_id)
        return renamed

    def _keep_one_root(self, without: set[str]) -> None:
        """Raise Conflict when nobody could administer the mesh without these keys any more."""
        roots = {key_id for key_id, record in self._directory.keys().items() if is_root(record)}
        if roots & without and not roots - without:
            raise Conflict("this is the last API key with the permission admin for all namespaces; make another first")


def _email(record: pipeline.KeyRecord) -> str:
    # An older version made the key of the settings without one.
    return record.email or BOOTSTRAP_EMAIL


def _copy(record: pipeline.KeyRecord) -> pipeline.KeyRecord:
    copy = pipeline.KeyRecord()
    copy.CopyFrom(record)
    return copy


def _shown(record: pipeline.KeyRecord) -> namespace_pb2.ApiKey:
    return namespace_pb2.ApiKey(
        name=record.key_name,
        prefix=record.prefix,
        email=_email(record),
        namespaces=record.namespace_ids,
        permissions=record.permissions,
        created_at=record.created_at,
        disabled=record.disabled,
        expires_at=record.expires_at if record.HasField("expires_at") else None,
        requests_per_minute=record.requests_per_minute or None,
    )
