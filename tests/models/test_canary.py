"""A killed model process is found and healed, on a real server."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from tritonclient.utils import InferenceServerException

from runner.canary import Canary, CanarySettings, Event, role_models
from runner.triton import ready
from tests.models import pictures
from tests.models.conftest import Client, Server

_SETTINGS = CanarySettings(interval_s=0.1, deadline_s=20.0, failures_max=2)
Stubs = Callable[[str], list[int]]


async def test_every_role_model_answers_the_canary(server: Server) -> None:
    """On a healthy server each role model answers its canary and nothing is reported."""
    events: list[tuple[str, Event]] = []
    canary = Canary(server.address, role_models(server.model_set), report=lambda *event: events.append(event))

    answered = await canary.check()
    await canary.close()

    assert dict.fromkeys(role_models(server.model_set), True) == answered
    assert canary.healthy
    assert events == []


async def test_a_killed_model_is_reloaded(lite: Client, stubs: Stubs) -> None:
    """After kill -9 of its process a model answers again, though Triton called it ready all along."""
    events: list[tuple[str, Event]] = []
    canary = Canary(lite.server.address, ["faces"], settings=_SETTINGS, report=lambda *event: events.append(event))
    for pid in stubs("faces"):
        os.kill(pid, signal.SIGKILL)

    with pytest.raises(InferenceServerException):
        await lite.documents("faces", "FACES", IMAGE=[pictures.blank()])
    assert await ready(lite.server.address, ["faces"])
    await canary.check()
    await canary.close()

    assert canary.healthy
    assert events == [("faces", "dead"), ("faces", "reloaded"), ("faces", "alive")]
    assert await lite.documents("faces", "FACES", IMAGE=[pictures.blank()]) == [[]]


async def test_a_killed_inner_model_is_reloaded(lite: Client, stubs: Stubs) -> None:
    """A model two calls below the one that is asked is healed, and only that one."""
    events: list[tuple[str, Event]] = []
    canary = Canary(lite.server.address, ["caption"], settings=_SETTINGS, report=lambda *event: events.append(event))
    for pid in stubs("object_detector"):
        os.kill(pid, signal.SIGKILL)

    await canary.check()
    await canary.close()

    assert canary.healthy
    assert [event for event in events if event[1] == "reloaded"] == [("object_detector", "reloaded")]
    assert len(await lite.documents("caption", "CAPTION", IMAGE=[pictures.blank(99, 99)])) == 1


async def test_a_missing_server_is_left_to_its_supervisor() -> None:
    """Without a server the canary reports its models dead and tries no reload."""
    events: list[tuple[str, Event]] = []
    canary = Canary("127.0.0.1:9", ["ocr"], settings=_SETTINGS, report=lambda *event: events.append(event))

    assert await canary.check() == {"ocr": False}
    assert await canary.check() == {"ocr": False}
    await canary.close()

    assert not canary.healthy
    assert events == [("ocr", "failing"), ("ocr", "dead")]


async def test_the_canary_outlives_a_model_that_cannot_be_reloaded(lite_server: Server) -> None:
    """A model that the server does not know is reported each time, and the others are asked all the same."""
    events: list[tuple[str, Event]] = []
    settings = CanarySettings(interval_s=0.1, deadline_s=20.0, failures_max=1)
    canary = Canary(
        lite_server.address, ["unknown", "embed_text"], settings=settings, report=lambda *event: events.append(event)
    )

    assert await canary.check() == {"unknown": False, "embed_text": True}
    await canary.close()

    assert events == [("unknown", "dead"), ("unknown", "reload_failed")]
