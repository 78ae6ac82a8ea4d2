"""The settings of the embedder: its worker, its writes to Milvus, its searches."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.mesh.bus.worker import WorkerSettings


class EmbedderWorkerSettings(WorkerSettings):
    """Limits of the second hop."""

    model_config = SettingsConfigDict(env_prefix="LENSMESH_EMBEDDER_", extra="ignore")

    concurrency: int = Field(32, ge=1, le=1024, description="Jobs at a time; writes of all of them go together.")


class MilvusSettings(BaseSettings):
    """How rows are written and read."""

    model_config = SettingsConfigDict(env_prefix="LENSMESH_MILVUS_", extra="ignore")

    batch_rows_max: int = Field(64, ge=1, le=1000, description="Rows of one upsert.")
    batch_wait_ms: float = Field(
        250, ge=0, description="How long a row waits for others to share its upsert, when others came a moment before."
    )
    call_s_max: float = Field(30, gt=0, description="Deadline of one call.")
    flush_s: float = Field(0, ge=0, description="Look this often for what to flush; 0: never (a cluster does itself).")
    flush_rows: int = Field(
        200,
        ge=1,
        description="Flush a collection that is being written to after so many rows: Lite searches them slowly.",
    )


class LeftoverSettings(BaseSettings):
    """When images that belong to no asset any more are removed."""

    model_config = SettingsConfigDict(env_prefix="LENSMESH_LEFTOVERS_", extra="ignore")

    wait_s: float = Field(
        3600, ge=0, description="Wait before an image is removed; a task under way may have found it: longer than any."
    )
    look_s: float = Field(
        600, gt=0, description="Time between two looks for images whose wait is over: each is a pass over all rows."
    )


class ReembedSettings(BaseSettings):
    """How a namespace is embedded anew."""

    model_config = SettingsConfigDict(env_prefix="LENSMESH_REEMBED_", extra="ignore")

    concurrency: int = Field(4, ge=1, le=256, description="Features at a time; new assets need the models, too.")
    grace_s: float = Field(
        10, ge=0, description="Until old vectors are removed; searches and writes under way still use them."
    )
