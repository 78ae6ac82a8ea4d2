"""The model set (which model serves which role) and the client of the Triton server that serves them.

What a role's tensors mean is known where the role is used.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc.aio as triton
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from tritonclient.utils import InferenceServerException

from services.mesh.config import ConfigError
from services.mesh.errors import BrokenImage, ModelFailed, Unavailable

SETS = Path(__file__).resolve().parents[2] / "models" / "sets"


class Role(BaseModel):
    """Which model serves a role, and what it needs."""

    model: str = ""
    image_model: str = ""
    text_model: str = ""
    # Makes of an uploaded image of a logo what it is found by; and compares regions of a picture with such marks.
    mark_model: str = ""
    verifier_model: str = ""
    version: str
    # Roles whose results this one takes in when they were asked for too.
    uses: tuple[str, ...] = ()
    # Findings below are dropped unless the request says otherwise, 0..1.
    threshold: float = 0.0
    # Dimensions of the vectors that an embedding role makes.
    dim: int = 0

    @property
    def models(self) -> tuple[str, ...]:
        """The models of the role."""
        named = (self.model, self.image_model, self.text_model, self.mark_model, self.verifier_model)
        return tuple(name for name in named if name)


class ModelSet(BaseModel):
    """A choice of models by role: ocr, caption, faces, logos, structure, embed_image, embed_multimodal, embed_text.

    A set may also have embed_face.
    """

    name: str
    roles: dict[str, Role]

    @classmethod
    def read(cls, name: str) -> ModelSet:
        """Read a set by its name in models/sets, or by its path.

        Raises:
            ConfigError: there is no such set, or it is not valid.
        """
        path = Path(name) if name.endswith(".json") else SETS / f"{name}.json"
        try:
            return cls.model_validate(json.loads(path.read_text()))
        except FileNotFoundError:
            known = ", ".join(sorted(each.stem for each in SETS.glob("*.json")))
            raise ConfigError(f"LENSMESH_MODEL_SET: no model set {name!r}; there are: {known}") from None
        except ValueError as error:
            raise ConfigError(f"LENSMESH_MODEL_SET: {path.name} is not a model set: {error}") from None


class TritonSettings(BaseSettings):
    """Limits of calls to Triton."""

    model_config = SettingsConfigDict(env_prefix="LENSMESH_TRITON_", extra="ignore")

    deadline_s: float = Field(60, gt=0, description="Deadline of one inference; OCR of a huge page takes seconds.")
    concurrency: int = Field(32, ge=1, description="Inferences at a time from one process; Triton queues the rest.")


# A restarted server is found again within a second; gRPC's own longest wait is two minutes. Images may be large.
CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
)


class TritonModels:
    """Calls models by name over Triton's gRPC protocol."""

    def __init__(self, address: str, settings: TritonSettings) -> None:
        self._client = triton.InferenceServerClient(address, channel_args=list(CHANNEL_OPTIONS))
        self._settings = settings
        self._free = asyncio.Semaphore(settings.concurrency)

    async def infer(
        self, model: str, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]
    ) -> dict[str, NDArray[Any]]:
        """Run a model once.

        Args:
            inputs: tensors by name; object arrays are sent as BYTES.

        Raises:
            BrokenImage: the model can't decode the image.
            ModelFailed: the model refused or broke.
            Unavailable: the server does not answer in time.
        """
        async with self._free:
            try:
                result = await self._client.infer(
                    model,
                    [_tensor(name, value) for name, value in inputs.items()],
                    outputs=[triton.InferRequestedOutput(name) for name in outputs],
                    client_timeout=self._settings.deadline_s,
                )
            except InferenceServerException as error:
                raise _translated(model, error) from error
        return {name: result.as_numpy(name) for name in outputs}

    async def ready(self, models: Sequence[str]) -> None:
        """Raise Unavailable unless all these models are loaded."""
        try:
            for model in models:
                if not await self._client.is_model_ready(model, client_timeout=2):
                    raise Unavailable(f"the model {model!r} is not loaded")
        except InferenceServerException as error:
            raise Unavailable(f"Triton does not answer: {error.message()}") from error

    async def close(self) -> None:
        """Disconnect."""
        await self._client.close()


def bytes_tensor(*values: bytes) -> NDArray[np.object_]:
    """BYTES[B, 1] of B values."""
    tensor = np.empty((len(values), 1), dtype=np.object_)
    tensor[:, 0] = values
    return tensor


def _tensor(name: str, value: NDArray[Any]) -> triton.InferInput:
    datatype = "BYTES" if value.dtype == np.object_ else "FP32"
    tensor = triton.InferInput(name, list(value.shape), datatype)
    tensor.set_data_from_numpy(value)
    return tensor


def _translated(model: str, error: InferenceServerException) -> Exception:
    message, status = str(error.message()), str(error.status())
    if "bad image:" in message:
        return BrokenImage(f"the model {model!r} can't decode the image")
    if "UNAVAILABLE" in status:
        return Unavailable("the model server does not answer")
    if "DEADLINE_EXCEEDED" in status:
        return Unavailable(f"the model {model!r} did not answer in time")
    if "NOT_FOUND" in status:
        return Unavailable(f"the model {model!r} is not loaded")
    return ModelFailed(f"the model {model!r} failed: {message.splitlines()[0][:200] if message else status}")
