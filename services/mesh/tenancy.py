"""The one place where names are scoped by tenant: every key, subject, row and query passes through `Tenant`.

No other module builds a namespace prefix; a part that could escape its scope is refused here.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from services.mesh.errors import NotFound

# Marks the key of a normalised image; the file itself, when it was uploaded, has its bare hash.
_IMAGE = "-n"
# Marks the key of a file that came to be indexed, and so belongs to its asset.
_UPLOAD = "-u"
# One token of a NATS subject or KV key: no dots, wildcards or spaces.
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")


def derived_id(kind: str, *parts: str) -> str:
    """An id that the same parts always give: `kind` and 20 hex digits of SHA-256."""
    digest = hashlib.sha256("\x1f".join((kind, *parts)).encode()).hexdigest()
    return f"{kind}_{digest[:20]}"


def derived_uuid(*parts: str) -> str:
    """A UUID (version 8: the digest is our own, BLAKE2b) that the same parts always give."""
    digest = hashlib.blake2b("\x1f".join(parts).encode(), digest_size=16).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-8{digest[13:16]}-a{digest[17:20]}-{digest[20:]}"


def namespace_id(name: str) -> str:
    """The id of the namespace of that name."""
    return derived_id("ns", name)


@dataclass(frozen=True, slots=True)
class Tenant:
    """A namespace, and the names that belong to it."""

    namespace_id: str

    def __post_init__(self) -> None:
        if not _TOKEN.fullmatch(self.namespace_id):
            raise NotFound("no such namespace")

    def key(self, *parts: str) -> str:
        """A KV key or a subject's tail under this namespace.

        Raises:
            NotFound: a part can't be an id of ours, so nothing is stored under it.
        """
        for part in parts:
            if not _TOKEN.fullmatch(part):
                raise NotFound(f"no such id: {part[:64]!r}")
        return ".".join((self.namespace_id, *parts))

    def pattern(self, *parts: str | None) -> str:
        """A pattern of keys in which None stands for any one token."""
        for part in parts:
            if part is not None:
                self.key(part)
        return ".".join((self.namespace_id, *(part or "*" for part in parts)))

    def collection_id(self, name: str) -> str:
        """The id of the collection of that name."""
        return derived_id("col", self.namespace_id, name)

    def blob(self, sha256: str) -> str:
        """The blob store's key of content with this hash."""
        return f"{self.namespace_id}/{sha256}"

    def image(self, file_sha256: str) -> str:
        """The blob store's key of the normalised image of a file: equal files have equal normalised images."""
        return self.blob(f"{file_sha256}{_IMAGE}")

    def upload(self, file_sha256: str) -> str:
        """The blob store's key of a file that was uploaded to be indexed; one that `POST /files` stored has another."""
        return self.blob(f"{file_sha256}{_UPLOAD}")

    def image_sha256(self, key: str) -> str:
        """The hash of the file behind a key that `image` made."""
        return key.removeprefix(self.blob("")).removesuffix(_IMAGE)

    def owns_blob(self, key: str) -> bool:
        """Whether a blob store's key belongs to this namespace."""
        return key.startswith(f"{self.namespace_id}/")

    def milvus_collection(self, name: str) -> str:
        """The Milvus collection that holds this namespace's rows of one kind."""
        return re.sub(r"[^A-Za-z0-9_]", "_", f"{self.namespace_id}_{name}")
