"""The settings of the percolator: its worker, its place among the replicas, and how matches are delivered."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.mesh.bus.worker import WorkerSettings
from services.mesh.outbound.config import OutboundSettings


class PercolatorWorkerSettings(WorkerSettings):
    """Limits of the last hop."""

    model_config = SettingsConfigDict(env_prefix="LENSMESH_PERCOLATOR_", extra="ignore")

    concurrency: int = Field(64, ge=1, le=1024, description="Jobs at a time; they are small, and matched together.")


class PercolatorSettings(BaseSettings):
    """How stored queries are spread over replicas, and where their vectors lie."""

    model_config = SettingsConfigDict(env_prefix="LENSMESH_PERCOLATOR_", extra="ignore")

    advertise: str = Field(
        "",
        description="host:port where the other replicas reach this one; empty: LENSMESH_PERCOLATOR_ADDRESS, which is"
        " right on one machine.",
    )
    copies: int = Field(
        1,
        ge=1,
        le=8,
        description="Replicas that hold each stored query. With two, one may die and nothing has to wait.",
    )
    heartbeat_s: float = Field(1, gt=0, description="Seconds between two signs of life.")
    gone_s: float = Field(5, gt=0, description="Silence after which a replica counts as gone and others take its part.")
    whole_s_max: float = Field(
        300,
        gt=0,
        description="How long a job waits for partitions that nobody has loaded; a million take about 40 s.",
    )
    ask_s_max: float = Field(
        30, gt=0, description="How long another replica may take to match a batch; after that it counts as silent."
    )
    leave_s_max: float = Field(15, gt=0, description="How long a replica that ends waits for others to take its part.")
    expire_s: float = Field(10, gt=0, description="Seconds between two looks for stored queries that have expired.")
    batch_assets_max: int = Field(
        64, ge=1, le=256, description="Assets matched together; more gain nothing, and each waits for all."
    )
    vectors_dir: Path | None = Field(
        None,
        description="Where vectors lie that are too many for memory, 2 KB each, and names and metadata for matches;"
        " empty: where temporary files do.",
    )


class WebhookSettings(OutboundSettings):
    """Limits of the delivery of matches; set by `LENSMESH_WEBHOOK_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="LENSMESH_WEBHOOK_", extra="ignore", frozen=True)

    call_seconds_max: float = Field(
        15, gt=0, description="Seconds for one call in all; who needs longer should queue what it gets, and answer."
    )
    connect_seconds_max: float = Field(5, gt=0, description="Seconds for one TCP and TLS handshake.")
    calls_max: int = Field(64, ge=1, description="Calls at a time; each holds at most one body in memory.")
    calls_per_host_max: int = Field(
        8, ge=1, description="Calls at a time to one origin; what a slow one can take away from all others."
    )
    call_matches_max: int = Field(100, ge=1, description="Matches of one call.")
    call_bytes_max: int = Field(
        1_000_000,
        ge=1,
        description="Bytes of one call's body, unless one match alone has more; many receivers refuse above 1 MB.",
    )
    response_bytes_max: int = Field(
        16_384, ge=0, description="Bytes of an answer that are read, so that its connection can be used again."
    )
    attempts_max: int = Field(
        60,
        ge=1,
        description="Tries of one call before its matches become dead letters. With full jitter a wait is half of its "
        "bound on average: 10 waits below 3,600 s come to 2,560 s, 49 of 3,600 s to 88,200 s, in all 25 hours.",
    )
    backoff_first_s: float = Field(5, gt=0, description="Longest wait before the second try; doubles each time.")
    backoff_max_s: float = Field(
        3600, gt=0, description="Longest wait between two tries, also when an endpoint's Retry-After asks for more."
    )
    breaker_failures: int = Field(
        5,
        ge=1,
        description="Failures in a row, of all stored queries of a namespace, after which an origin is left alone.",
    )
    breaker_first_s: float = Field(30, gt=0, description="How long it is left alone at first; doubles each time.")
    breaker_max_s: float = Field(600, gt=0, description="How long it is left alone at most, before a probe.")
    queue_max: int = Field(
        1_000_000,
        ge=1,
        description="Sequences of waiting matches in memory, 40 MB; others are looked up later.",
    )
    queue_percolator_max: int = Field(1_000, ge=1, description="Those of one stored query.")
    checkpoint_s: float = Field(
        5,
        gt=0,
        description="Seconds between two notes of how far matches were looked at; a start goes on there.",
    )
    resolver_threads: int = Field(16, ge=1, description="Threads that look up names.")
    drain_s_max: float = Field(20, gt=0, description="How long running calls may go on at shutdown.")
