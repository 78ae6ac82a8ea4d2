"""The setting that opens single addresses to fetching and to webhooks alike."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from services.mesh.outbound.guard import ALLOW_SETTING, Endpoint, parse_endpoint


def _endpoints(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return tuple(parse_endpoint(entry) for entry in value.split(",") if entry.strip())


class OutboundSettings(BaseSettings):
    """What whoever calls strangers' URLs lets through; a service's own settings inherit it."""

    model_config = SettingsConfigDict(env_prefix="LENSMESH_", extra="ignore", frozen=True, populate_by_name=True)

    fetch_allow: Annotated[tuple[Endpoint, ...], NoDecode, BeforeValidator(_endpoints)] = Field(
        default=(),
        validation_alias=ALLOW_SETTING,
        description="address:port pairs, comma-separated, that the address guard lets through, for fetching and for"
        " webhooks; for photo hosts and receivers on a private network. Exact pairs, so that opening one host does not"
        " open its neighbours.",
    )
