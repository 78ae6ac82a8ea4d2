"""The settings of the vision service's worker; fetching, decoding and analysing own theirs."""

from __future__ import annotations

from pydantic_settings import SettingsConfigDict

from services.mesh.bus.worker import WorkerSettings


class VisionWorkerSettings(WorkerSettings):
    """Limits of the first hop."""

    model_config = SettingsConfigDict(env_prefix="LENSMESH_VISION_", extra="ignore")
