"""Asks every role model for one small answer from time to time and reloads what no longer gives one.

Triton calls a model ready after its process was killed, and nothing in Triton restarts it; this does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import itertools
import json
import logging
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import grpc
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

Event = Literal["alive", "failing", "dead", "reloaded", "reload_failed"]
Report = Callable[[str, Event], None]

# A BLS model that calls a dead one says so in these words; with several levels the innermost comes last.
_INNER = re.compile(r"inner model (\w+) failed")
# Triton's own words for a dead process, which never comes back: no need to wait for a second failure. With several
# instances of a model the others go on answering, so that failures in a row may never come.
_DEAD_FOR_GOOD = re.compile(r"Stub process .* is not healthy")
_INNER_KEYS = ("inner_models", "optional_inner_models")  # parameters of a model's configuration
_RELOAD_SECONDS_MAX = 60.0
_POLL_SECONDS = 0.05
# A face in the middle of the small picture.
_LANDMARKS = b"[[24,24],[40,24],[32,34],[26,42],[38,42]]"
_FAILURES = (InferenceServerException, grpc.RpcError, TimeoutError)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CanarySettings:
    """How often to ask, how long to wait, and after how many failures in a row to reload."""

    interval_s: float = 10.0
    deadline_s: float = 10.0
    failures_max: int = 2
    # Of one model; after a reload that did not help, everything it calls is reloaded with it.
    reload_timeout_s: float = _RELOAD_SECONDS_MAX

    def __post_init__(self) -> None:
        if min(self.interval_s, self.deadline_s, self.reload_timeout_s) <= 0 or self.failures_max < 1:
            raise ValueError("canary times must be above zero and failures_max at least 1")


def role_models(model_set: Mapping[str, Any]) -> tuple[str, ...]:
    """The models that the services call, from a model set document, each once."""
    keys = ("model", "image_model", "text_model", "mark_model", "verifier_model")
    return tuple(dict.fromkeys(role[key] for role in model_set["roles"].values() for key in keys if key in role))


def canary_settings(model_set: Mapping[str, Any]) -> CanarySettings:
    """How patient to be with the models of a set: large ones on a CPU, all asked at once, may need longer."""
    return CanarySettings(deadline_s=float(model_set.get("answer_seconds_max", CanarySettings.deadline_s)))


class Canary:
    """Watches ``models`` of the Triton at ``address`` (gRPC, host:port): let ``run`` go on, or ``check`` yourself."""

    def __init__(
        self,
        address: str,
        models: Sequence[str],
        *,
        settings: CanarySettings | None = None,
        report: Report | None = None,
    ) -> None:
        self._address, self._models = address, tuple(models)
        self._settings = settings or CanarySettings()
        self._report = report or _log_event
        self._client: InferenceServerClient | None = None
        self._failures: Counter[str] = Counter()
        self._reloads: Counter[str] = Counter()  # in a row, without an answer in between
        self._inputs: dict[str, frozenset[str]] = {}
        self._probe = _Probe()

    async def run(self) -> None:
        """Checks all models every ``interval_s`` until cancelled."""
        try:
            while True:
                await self.check()
                await asyncio.sleep(self._settings.interval_s)
        finally:
            await self.close()

    async def close(self) -> None:
        """Closes the connection; the next check opens a new one."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()

    async def check(self) -> dict[str, bool]:
        """Asks each model once, one after the other, heals what is due, and returns which of them answered."""
        answered = {}
        for model in self._models:
            error = await self._ask(model)
            answered[model] = error is None
            if error is None:
                self._note_success(model)
            else:
                await self._note_failure(model, error)
        return answered

    @property
    def healthy(self) -> bool:
        """Whether no model has reached its number of failures without answering since."""
        return all(self._failures[model] < self._settings.failures_max for model in self._models)

    def _connected(self) -> InferenceServerClient:
        if self._client is None:
            self._client = InferenceServerClient(self._address)
        return self._client

    async def _ask(self, model: str) -> str | None:
        """None for an answer, else what went wrong."""
        try:
            async with asyncio.timeout(self._settings.deadline_s):
                tensors = self._probe.tensors(await self._input_names(model))
                await self._connected().infer(model, tensors)
        except _FAILURES as error:
            return str(error) or type(error).__name__
        return None

    async def _input_names(self, model: str) -> frozenset[str]:
        if model not in self._inputs:
            metadata = await self._connected().get_model_metadata(model, as_json=True)
            self._inputs[model] = frozenset(tensor["name"] for tensor in metadata["inputs"])
        return self._inputs[model]

    def _note_success(self, model: str) -> None:
        if self._failures[model]:
            self._report(model, "alive")
        self._failures[model] = self._reloads[model] = 0

    async def _note_failure(self, model: str, error: str) -> None:
        self._failures[model] += 1
        _log.warning("canary: %s gave no answer: %s", model, error[:300])
        if self._failures[model] < self._settings.failures_max and not _DEAD_FOR_GOOD.search(error):
            self._report(model, "failing")
            return
        self._report(model, "dead")
        if not await self._server_live():
            return  # the whole server is away: that is its supervisor's to heal
        for broken in await self._to_reload(model, error):
            await self._reload(broken)
        self._reloads[model] += 1
        if await self._ask(model) is None:
            self._note_success(model)

    async def _server_live(self) -> bool:
        try:
            return bool(await self._connected().is_server_live(client_timeout=self._settings.deadline_s))
        except _FAILURES:
            return False

    async def _to_reload(self, model: str, error: str) -> list[str]:
        """The innermost model that the error names, or, if that has not helped before, all that ``model`` stands on."""
        named = _INNER.findall(error)
        if not self._reloads[model]:
            return [named[-1] if named else model]
        return await self._inner_first(model)

    async def _inner_first(self, model: str) -> list[str]:
        """``model`` after all the models it calls, from their configurations; unreadable ones count as calling none."""
        found: list[str] = []
        try:
            answer = await self._connected().get_model_config(model, as_json=True)
            parameters = answer["config"].get("parameters", {})
        except _FAILURES:
            parameters = {}
        called = (parameters[key]["string_value"].split(",") for key in _INNER_KEYS if key in parameters)
        for name in itertools.chain.from_iterable(called):
            found += [each for each in await self._inner_first(name) if each not in found]
        return [*found, model]

    async def _reload(self, model: str) -> None:
        client = self._connected()
        try:
            async with asyncio.timeout(self._settings.reload_timeout_s):
                await client.unload_model(model)
                # Unloading goes on after the call has returned, and a load meanwhile would find nothing to do.
                while await client.is_model_ready(model):
                    await asyncio.sleep(_POLL_SECONDS)
                await client.load_model(model)
        except _FAILURES as error:
            _log.error("canary: %s could not be reloaded: %s", model, str(error)[:300])
            self._report(model, "reload_failed")
            return
        self._report(model, "reloaded")


class _Probe:
    """Makes the canary's small inputs, new ones each time: a remembered answer would prove nothing."""

    def __init__(self) -> None:
        # From anywhere, so that a restarted canary does not repeat the inputs of the one before.
        self._serial = itertools.count(random.getrandbits(24))

    def tensors(self, names: frozenset[str]) -> list[InferInput]:
        """The inputs a role model needs; lists are empty, so that ``logos`` need not read again."""
        serial = next(self._serial)
        values = {
            "IMAGE": _image(serial),
            "TEXT": f"canary {serial}".encode(),
            "LINES": b"[]",
            "LANDMARKS": _LANDMARKS,
            "REGIONS": b"[]",
            "MARKS": b"[]",
        }
        if "IMAGE" in names:
            values.pop("TEXT")
        return [_bytes_input(name, value) for name, value in values.items() if name in names]


def _image(serial: int) -> bytes:
    """A small PNG with a legible word, so that reading is exercised as well as finding."""
    image = Image.new("RGB", (128, 40), "white")
    ImageDraw.Draw(image).text((8, 6), f"canary {serial % 1000}", "black", ImageFont.load_default(22))
    image.putpixel((0, 0), (serial & 255, serial >> 8 & 255, serial >> 16 & 255))
    data = io.BytesIO()
    image.save(data, "PNG", compress_level=1)
    return data.getvalue()


def _bytes_input(name: str, value: bytes) -> InferInput:
    tensor = InferInput(name, [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[value]], dtype=np.object_))
    return tensor


def _log_event(model: str, event: Event) -> None:
    level = logging.INFO if event in {"alive", "reloaded"} else logging.WARNING
    _log.log(level, "canary: %s is %s", model, event)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of the sidecar; runs until it is interrupted."""
    parser = argparse.ArgumentParser(prog="python -m runner.canary", description=__doc__)
    parser.add_argument("--address", required=True, help="Triton's gRPC address as host:port")
    parser.add_argument("--set", required=True, type=Path, dest="set_path", help="the model set, models/sets/NAME.json")
    parser.add_argument("--interval-s", type=float, default=CanarySettings.interval_s)
    parser.add_argument("--deadline-s", type=float, help="seconds for one answer; left out, the model set says")
    parser.add_argument("--failures-max", type=int, default=CanarySettings.failures_max)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    model_set = json.loads(given.set_path.read_text())
    deadline_s = canary_settings(model_set).deadline_s if given.deadline_s is None else given.deadline_s
    settings = CanarySettings(given.interval_s, deadline_s, given.failures_max)
    models = role_models(model_set)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(Canary(given.address, models, settings=settings).run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
