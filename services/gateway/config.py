"""The settings of the gateway: its doors, its limits, its sweeper."""

from __future__ import annotations

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class DoorSettings(BaseSettings):
    """Where the gateway listens. Loopback unless told otherwise."""

    model_config = SettingsConfigDict(env_prefix="LENSMESH_", extra="ignore")

    rest_host: str = Field("127.0.0.1", description="Address of the REST door.")
    rest_port: int = Field(8080, ge=0, le=65535, description="Port of the REST door; 0: any free one.")
    grpc_host: str = Field("127.0.0.1", description="Address of the gRPC door.")
    grpc_port: int = Field(9090, ge=0, le=65535, description="Port of the gRPC door; 0: any free one.")


class GatewaySettings(BaseSettings):
    """Limits and defaults of requests."""

    model_config = SettingsConfigDict(env_prefix="LENSMESH_GATEWAY_", extra="ignore")

    bootstrap_key: SecretStr = Field(
        SecretStr(""), description="An API key that exists from the start, with every permission; empty: none."
    )
    body_bytes_max: int = Field(96_000_000, ge=1, description="Bytes of a REST request's body: a 64 MB file in base64.")
    file_bytes_max: int = Field(32_000_000, ge=1, description="Bytes of an uploaded or inline file.")
    metadata_bytes_max: int = Field(60_000, ge=1, description="Bytes of metadata as JSON; a Milvus field holds 64 KiB.")
    request_bytes_max: int = Field(
        200_000, ge=1, description="Bytes of a request; findings and matches share its task's record of 1 MB."
    )
    embed_text_chars_max: int = Field(32_000, ge=1, description="Characters of one text to be embedded.")
    skip_duplicate: bool = Field(
        False, description="What skip_duplicate means when a request says neither this nor on_duplicate."
    )
    requests_per_minute: int = Field(
        60_000,
        ge=1,
        description="Requests of one API key a minute, unless the key says otherwise; beyond: 429. 1,000 a second are "
        "more than one gateway serves, so that by itself it only ends loops that went wild.",
    )
    retry_after_s: float = Field(5, gt=0, description="Retry-After when the ingress is full.")
    public_url: str = Field(
        "", description="Where callers reach the REST door, put before links; empty: links are paths of that door."
    )
    link_s: float = Field(3600, gt=0, description="How long a preview's link works.")
    collections_max: int = Field(10_000, ge=0, description="Collections of a namespace that says nothing of its own.")
    stored_queries_max: int = Field(
        1_000_000, ge=0, description="Stored queries of a namespace that says nothing of its own: 2 GB in memory."
    )
    import_line_bytes_max: int = Field(
        1_000_000,
        ge=1,
        description="Bytes of one stored query of an import; those with large inline images need more.",
    )
    dry_run_features_max: int = Field(
        100_000,
        ge=1,
        description="Features that a dry run looks at; about 2 ms of CPU each, in all processes together.",
    )
    assets_max: int = Field(
        10_000_000, ge=0, description="Assets of a namespace that says nothing of its own; one Milvus collection's due."
    )
    count_s: float = Field(60, gt=0, description="How long a count of assets is believed.")
    event_keepalive_s: float = Field(15, gt=0, description="Silence on an event stream after which a comment is sent.")
    sweep_s: float = Field(10, gt=0, description="Seconds between two looks for tasks that were never dispatched.")
    stale_s: float = Field(15, gt=0, description="Age from which a task that is still QUEUED is looked after.")
