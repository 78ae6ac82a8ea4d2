"""Every stream, bucket and subject of the mesh, and the connection to the server that holds them.

Settings of JetStream live here and nowhere else.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import nats
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, KeyValueConfig, RePublish, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import BadRequestError, NotFoundError
from nats.js.kv import KeyValue
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.mesh.tenancy import Tenant

log = structlog.get_logger()

# NATS' own error code for "stream name already in use with a different configuration".
_STREAM_NAME_IN_USE = 10058
_SAY_AGAIN_S = 10.0


class BusSettings(BaseSettings):
    """Limits of the bus."""

    model_config = SettingsConfigDict(env_prefix="LENSMESH_BUS_", extra="ignore")

    ingress_messages_max: int = Field(100_000, ge=1, description="Tasks waiting for vision; beyond: 429.")
    dead_letter_days: float = Field(14, gt=0, description="How long dead letters are kept.")
    message_bytes_max: int = Field(1_000_000, ge=1, description="Bytes of one message; NATS' default limit.")


@dataclass(frozen=True, slots=True)
class Hop:
    """One work-queue stream and the durable consumer that empties it."""

    name: str

    @property
    def stream(self) -> str:
        """The stream's name."""
        return f"LENSMESH_{self.name.upper()}"

    @property
    def subjects(self) -> str:
        """The subjects that the stream takes."""
        return f"lensmesh.{self.name}.>"

    def subject(self, tenant: Tenant, task_id: str) -> str:
        """The subject of one task's message."""
        return f"lensmesh.{self.name}.{tenant.key(task_id)}"


VISION = Hop("vision")
EMBEDDER = Hop("embedder")
PERCOLATOR = Hop("percolator")
HOPS = (VISION, EMBEDDER, PERCOLATOR)

DEAD_LETTERS = "LENSMESH_DEAD_LETTERS"
DEAD_LETTER_SUBJECT = "lensmesh.dead"
# Matches that a webhook did not take, among the dead letters.
DEAD_DELIVERY_SUBJECT = f"{DEAD_LETTER_SUBJECT}.delivery"
# Every match as it is stored, for whoever may connect to NATS: its key follows, the payload is the match.
MATCH_SUBJECT = "lensmesh.match"
CANCEL_SUBJECT = "lensmesh.cancel"

TASKS = "lensmesh_tasks"
CLAIMS = "lensmesh_claims"
NAMESPACES = "lensmesh_namespaces"
COLLECTIONS = "lensmesh_collections"
KEYS = "lensmesh_keys"
# The stored queries: a bucket for each partition of them, so that a percolator is sent those of its own and no others.
STORED_QUERIES = tuple(f"lensmesh_stored_queries_{partition:02}" for partition in range(64))
# Where an older version had all of them.
STORED_QUERIES_BEFORE = "lensmesh_stored_queries"
MATCHES = "lensmesh_matches"
# The percolators that are there, and what each has loaded.
PERCOLATORS = "lensmesh_percolators"
# How the deliveries of matches stand.
DELIVERIES = "lensmesh_deliveries"
# The logos that namespaces upload, with their marks.
LOGOS = "lensmesh_logos"
# Blobs that fit into one message; larger ones are in the object store.
SMALL_BLOBS = "lensmesh_small_blobs"
# Which model each index is searched by.
GENERATIONS = "lensmesh_generations"
# What all gateways sign links with.
SECRETS = "lensmesh_secrets"
# Images of assets that are gone, until they are surely nobody's.
LEFTOVERS = "lensmesh_leftovers"
# The answers to requests with an Idempotency-Key.
IDEMPOTENCY = "lensmesh_idempotency"
# What keys used, by day.
USAGE = "lensmesh_usage"
BUCKETS = (
    *(TASKS, CLAIMS, NAMESPACES, COLLECTIONS, KEYS, *STORED_QUERIES, MATCHES, LOGOS, SMALL_BLOBS, GENERATIONS),
    *(LEFTOVERS, SECRETS, IDEMPOTENCY, USAGE, DELIVERIES, PERCOLATORS),
)
_DAY_S = 86_400.0
# Seconds after which a bucket forgets what was written; the others never do.
_FORGOTTEN_AFTER_S = {IDEMPOTENCY: _DAY_S, USAGE: 90 * _DAY_S, PERCOLATORS: 60.0}

BLOBS = "lensmesh_blobs"


def bucket_stream(bucket: str) -> str:
    """The stream under a KV bucket."""
    return f"KV_{bucket}"


def bucket_subject(bucket: str, key: str) -> str:
    """The subject of a key of a KV bucket."""
    return f"$KV.{bucket}.{key}"


# Buckets whose values the server publishes once more when they are stored.
_REPUBLISHED = {MATCHES: RePublish(src=bucket_subject(MATCHES, ">"), dest=f"{MATCH_SUBJECT}.>")}


@dataclass(frozen=True, slots=True)
class Bus:
    """A connection to NATS with its JetStream context."""

    client: Client
    js: JetStreamContext

    async def bucket(self, name: str) -> KeyValue:
        """Open a KV bucket."""
        return await self.js.key_value(name)

    async def ping(self) -> None:
        """Raise unless the server answers JetStream requests within 2 seconds."""
        await asyncio.wait_for(self.js.account_info(), timeout=2)

    async def close(self) -> None:
        """Send what is buffered and disconnect; the workers have drained before, so nothing waits for messages."""
        if self.client.is_connected:
            await self.client.flush()
        await self.client.close()


async def connect(url: str, service: str, *, stream_replicas: int, settings: BusSettings) -> Bus:
    """Connect, reconnecting for ever, and make sure that every stream and bucket exists.

    Raises:
        OSError or nats.errors.Error: the server can't be reached now.
    """

    said: dict[str, float] = {}

    async def on_error(error: Exception) -> None:
        text = str(error) or type(error).__name__
        # While the server is away, every try to reconnect is the same error.
        if time.monotonic() - said.get(text, -_SAY_AGAIN_S) >= _SAY_AGAIN_S:
            said[text] = time.monotonic()
            log.warning("nats error", error=text)

    client = await nats.connect(
        url,
        name=f"lensmesh-{service}",
        inbox_prefix=f"_INBOX_{service}",
        error_cb=on_error,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.1,
        connect_timeout=2,
        ping_interval=5,
        allow_reconnect=True,
    )
    js = client.jetstream(timeout=5)
    await _ensure(js, stream_replicas, settings)
    return Bus(client, js)


async def _ensure(js: JetStreamContext, replicas: int, settings: BusSettings) -> None:
    for hop in HOPS:
        bounded = hop is VISION
        await _ensure_stream(
            js,
            StreamConfig(
                name=hop.stream,
                subjects=[hop.subjects],
                retention=RetentionPolicy.WORK_QUEUE,
                storage=StorageType.FILE,
                num_replicas=replicas,
                max_msgs=settings.ingress_messages_max if bounded else -1,
                # A full ingress refuses instead of forgetting; the other hops only hold what was accepted.
                discard=DiscardPolicy.NEW,
                duplicate_window=120,
                allow_direct=False,
            ),
        )
    await _ensure_stream(
        js,
        StreamConfig(
            name=DEAD_LETTERS,
            subjects=[f"{DEAD_LETTER_SUBJECT}.>"],
            storage=StorageType.FILE,
            num_replicas=replicas,
            max_age=settings.dead_letter_days * 86_400,
        ),
    )
    for bucket in BUCKETS:
        republish = _REPUBLISHED.get(bucket)
        try:
            await js.key_value(bucket)
            if republish:
                await _ensure_republish(js, bucket, republish)
        except NotFoundError:
            # Direct reads cost half of those through the API. A replica's may be a moment old, which compare-and-set
            # notices on every write.
            await js.create_key_value(
                KeyValueConfig(
                    bucket=bucket,
                    history=1,
                    ttl=_FORGOTTEN_AFTER_S.get(bucket),
                    storage=StorageType.FILE,
                    replicas=replicas,
                    direct=True,
                    republish=republish,
                )
            )
    try:
        await js.object_store(BLOBS)
    except NotFoundError:
        await js.create_object_store(BLOBS, storage=StorageType.FILE, replicas=replicas)


async def _ensure_republish(js: JetStreamContext, bucket: str, republish: RePublish) -> None:
    """Have a bucket that an older version made republish, too; all else of it stays as it is."""
    config = (await js.stream_info(bucket_stream(bucket))).config
    if config.republish != republish:
        await js.update_stream(config.evolve(republish=republish))


async def _ensure_stream(js: JetStreamContext, config: StreamConfig) -> None:
    try:
        await js.add_stream(config)
    except BadRequestError as error:
        if error.err_code != _STREAM_NAME_IN_USE:
            raise
        await js.update_stream(config)
