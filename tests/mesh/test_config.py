"""Settings from the environment: read, checked all at once, and never shown."""

from __future__ import annotations

import pytest

from services.embedder.config import EmbedderWorkerSettings, MilvusSettings
from services.gateway.config import DoorSettings, GatewaySettings
from services.mesh.bus.topology import BusSettings
from services.mesh.config import ConfigError, MeshSettings, load, load_or_exit
from services.mesh.models import ModelSet, TritonSettings
from services.mesh.outbound.config import OutboundSettings
from services.mesh.rpc import RpcSettings
from services.percolator.config import PercolatorWorkerSettings, WebhookSettings
from services.vision.acquire.config import AcquireSettings

EVERY = [
    AcquireSettings, BusSettings, DoorSettings, EmbedderWorkerSettings, GatewaySettings, MeshSettings, MilvusSettings,
    OutboundSettings, PercolatorWorkerSettings, RpcSettings, TritonSettings, WebhookSettings,
]  # fmt: skip


def test_settings_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable with the prefix and the name sets the value."""
    monkeypatch.setenv("LENSMESH_STREAM_REPLICAS", "3")
    monkeypatch.setenv("LENSMESH_LOG_LEVEL", "debug")
    settings = load(MeshSettings)
    assert (3, "debug", "nats://127.0.0.1:4222") == (
        settings.stream_replicas, settings.log_level, settings.nats_url,
    )  # fmt: skip


def test_every_mistake_is_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All wrong variables are named with their rules, and not one with its value."""
    monkeypatch.setenv("LENSMESH_STREAM_REPLICAS", "many-s3cret")
    monkeypatch.setenv("LENSMESH_LOG_LEVEL", "loud-s3cret")
    monkeypatch.setenv("LENSMESH_LOG_FORMAT", "xml-s3cret")
    with pytest.raises(ConfigError) as caught:
        load(MeshSettings)
    message = str(caught.value)
    for name in ("LENSMESH_STREAM_REPLICAS", "LENSMESH_LOG_LEVEL", "LENSMESH_LOG_FORMAT"):
        assert 1 == message.count(f"{name}:")
    assert "valid integer" in message
    assert "s3cret" not in message


def test_a_setting_with_a_name_of_its_own_is_reported_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable outside the prefix is named as it must be set."""
    monkeypatch.setenv("LENSMESH_FETCH_ALLOW", "photos.local:80")
    monkeypatch.setenv("LENSMESH_VISION_PIXELS_MAX", "-1")
    with pytest.raises(ConfigError) as caught:
        load(AcquireSettings)
    assert "  LENSMESH_FETCH_ALLOW:" in str(caught.value)
    assert "  LENSMESH_VISION_PIXELS_MAX:" in str(caught.value)


def test_wrong_settings_end_a_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A process with wrong settings says so on its standard error and ends with code 2."""
    monkeypatch.setenv("LENSMESH_REST_PORT", "70000")
    with pytest.raises(SystemExit) as caught:
        load_or_exit(DoorSettings)
    assert (2, True) == (caught.value.code, "LENSMESH_REST_PORT" in capsys.readouterr().err)


@pytest.mark.parametrize("settings_class", EVERY, ids=[each.__name__ for each in EVERY])
def test_every_setting_has_a_valid_default_and_a_description(
    settings_class: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an empty environment every class loads, and says of each setting what it is."""
    for name in ("LENSMESH_FETCH_ALLOW", "LENSMESH_MODEL_SET", "LENSMESH_LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    settings = load(settings_class)
    for name, field in settings_class.model_fields.items():
        assert field.description, name
    assert settings.model_config["env_prefix"].startswith("LENSMESH_")


def test_a_key_in_the_settings_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bootstrap key does not appear when settings are printed."""
    monkeypatch.setenv("LENSMESH_GATEWAY_BOOTSTRAP_KEY", "lm_s3cret")
    settings = load(GatewaySettings)
    assert "s3cret" not in f"{settings!r} {settings}"
    assert "lm_s3cret" == settings.bootstrap_key.get_secret_value()


def test_an_unknown_model_set_is_said_with_those_there_are() -> None:
    """A name that is no model set is a mistake in the settings that lists the sets."""
    with pytest.raises(ConfigError, match=r"no model set 'nope'; there are: .*trivial"):
        ModelSet.read("nope")
