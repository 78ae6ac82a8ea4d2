"""Reads settings from the environment, reporting every mistake at once, and holds the ones that all services share.

Each package owns its own settings class; this module only knows how to load one.
"""

from __future__ import annotations

import sys
from typing import Literal, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

SettingsT = TypeVar("SettingsT", bound=BaseSettings)


class ConfigError(Exception):
    """One or more settings are wrong; the message lists all of them."""


class MeshSettings(BaseSettings):
    """Where the mesh's servers are, and how its processes speak of themselves."""

    model_config = SettingsConfigDict(env_prefix="LENSMESH_", extra="ignore")

    nats_url: str = Field("nats://127.0.0.1:4222", description="NATS server with JetStream.")
    triton_address: str = Field("127.0.0.1:8001", description="host:port of Triton's gRPC endpoint.")
    milvus_uri: str = Field("http://127.0.0.1:19530", description="Milvus (or Milvus Lite as a server).")
    model_set: str = Field("lite", description="Name of the model set in models/sets, or a path to a JSON file.")
    model_sets_before: str = Field(
        "",
        description="Model sets, separated by commas, whose vectors are still searched until they are made anew.",
    )
    vision_address: str = Field("127.0.0.1:7101", description="host:port of the vision service.")
    embedder_address: str = Field("127.0.0.1:7102", description="host:port of the embedder service.")
    percolator_address: str = Field("127.0.0.1:7103", description="host:port of the percolator service.")
    stream_replicas: int = Field(1, ge=1, le=5, description="Replicas of every stream and bucket; 3 on a cluster.")
    log_format: Literal["text", "json"] = Field("json", description="json for machines, text for people.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")


def load(settings_class: type[SettingsT]) -> SettingsT:
    """Read one settings class from the environment.

    Raises:
        ConfigError: naming every variable that is wrong, its value's rule, and nothing of its value.
    """
    try:
        return settings_class()
    except ValidationError as error:
        prefix = settings_class.model_config.get("env_prefix", "")
        lines = []
        for mistake in error.errors(include_input=False, include_url=False):
            place = mistake["loc"]
            name = str(place[0]) if place else ""
            variable = name if name.isupper() else f"{prefix}{name}".upper()
            lines.append(f"  {variable}: {mistake['msg']}")
        raise ConfigError("wrong settings:\n" + "\n".join(lines)) from None


def load_or_exit(settings_class: type[SettingsT]) -> SettingsT:
    """Like `load`, for a process's first lines: prints the mistakes and exits with code 2."""
    try:
        return load(settings_class)
    except ConfigError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
