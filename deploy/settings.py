"""The names and rules of every setting that the services read, taken from their own code."""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Iterator, Mapping
from unittest import mock

import nats.aio.client
from pydantic import SecretStr
from pydantic_settings import BaseSettings

import services
from services.mesh.config import ConfigError, load

PREFIX = "LENSMESH_"


def settings_classes() -> tuple[type[BaseSettings], ...]:
    """Every settings class of the services."""
    for module in pkgutil.walk_packages(services.__path__, "services."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return tuple(
        each for each in _subclasses(BaseSettings) if each.__module__.startswith("services.") and _prefix(each)
    )


def names(classes: tuple[type[BaseSettings], ...], *, secret: bool = False) -> frozenset[str]:
    """The environment variables that the classes read; only the secret ones if asked so."""
    return frozenset(
        field.validation_alias if isinstance(field.validation_alias, str) else f"{_prefix(each)}{name}".upper()
        for each in classes
        for name, field in each.model_fields.items()
        if not secret or field.annotation is SecretStr
    )


def mistakes(classes: tuple[type[BaseSettings], ...], values: Mapping[str, str]) -> Iterator[str]:
    """What the code says about these values."""
    with mock.patch.dict(os.environ, values, clear=True):
        for each in classes:
            try:
                load(each)
            except ConfigError as error:
                yield str(error).replace("\n", " ")


def drain_s_max(classes: tuple[type[BaseSettings], ...]) -> float:
    """Seconds that a service may take to end: its leave, its longest drain, then that of its connection to NATS."""
    rest = importlib.import_module("services.gateway.rest.server")
    drains = [rest._DRAIN_S, *_defaults(classes, "drain_s_max")]
    leaves = [0.0, *_defaults(classes, "leave_s_max")]
    return float(max(leaves) + max(drains) + nats.aio.client.DEFAULT_DRAIN_TIMEOUT)


def _defaults(classes: tuple[type[BaseSettings], ...], name: str) -> list[float]:
    return [each.model_fields[name].default for each in classes if name in each.model_fields]


def _subclasses(parent: type[BaseSettings]) -> Iterator[type[BaseSettings]]:
    for each in parent.__subclasses__():
        yield each
        yield from _subclasses(each)


def _prefix(settings: type[BaseSettings]) -> str:
    return settings.model_config.get("env_prefix", "")
