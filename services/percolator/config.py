"""The settings of the percolator: its worker, and its place among the replicas."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.mesh.bus.worker import WorkerSettings


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
        description="How long a job waits for partitions that nobody has loaded; a million take under one minute.",
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
        None, description="Where vectors lie that are too many for memory, 2 KB each; empty: where temporary files do."
    )
