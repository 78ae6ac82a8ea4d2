"""The settings of the percolator's worker."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.mesh.bus.worker import WorkerSettings


class PercolatorWorkerSettings(WorkerSettings):
    """Limits of the last hop."""

    model_config = SettingsConfigDict(env_prefix="LENSMESH_PERCOLATOR_", extra="ignore")

    concurrency: int = Field(64, ge=1, le=1024, description="Jobs at a time; they are small.")
