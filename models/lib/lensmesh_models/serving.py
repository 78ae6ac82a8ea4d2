"""The thin layer between Triton's Python backend and the models: tensors in, tensors out, errors per request.

A request that fails answers with its own error; its neighbours in the list are served.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from lensmesh_models.images import BadImage

Tensors = dict[str, NDArray[Any]]


class BadInput(ValueError):
    """An input tensor other than the image is wrong."""


class InnerModelFailed(RuntimeError):
    """A model that this one calls gave an error; its name stands in the message for the canary to read."""

    def __init__(self, model: str, message: str) -> None:
        super().__init__(f"inner model {model} failed: {message}")


def call(model: str, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> Tensors:
    """Runs another model of this server. Raises BadImage where it says so, else InnerModelFailed."""
    request = pb_utils.InferenceRequest(
        model_name=model,
        requested_output_names=list(outputs),
        inputs=[pb_utils.Tensor(name, value) for name, value in inputs.items()],
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
    )
    try:
        response = request.exec()
    except Exception as error:  # the binding raises its own exception when the model is not loaded
        raise InnerModelFailed(model, str(error)) from error
    if response.has_error():
        message = response.error().message()
        if message.startswith("bad image:"):
            raise BadImage(message.removeprefix("bad image:").strip())
        raise InnerModelFailed(model, message)
    return {name: pb_utils.get_output_tensor_by_name(response, name).as_numpy() for name in outputs}


def strings(values: Iterable[bytes]) -> NDArray[np.object_]:
    """BYTES tensor [B,1] of the given values."""
    return np.array([[value] for value in values], dtype=np.object_)


def documents(values: Iterable[Any]) -> NDArray[np.object_]:
    """BYTES tensor [B,1], one UTF-8 JSON document an element."""
    return strings(json.dumps(value, ensure_ascii=False).encode() for value in values)


def document(tensor: NDArray[Any]) -> Any:
    """The JSON of a one-element BYTES tensor."""
    return json.loads(tensor.reshape(-1)[0])


class Model:
    """Base of every Python model here: subclasses give ``load`` and ``answer``."""

    folder: Path
    parameters: dict[str, str]

    def initialize(self, args: Mapping[str, str]) -> None:
        """Called by Triton once a process."""
        self.folder = Path(args["model_repository"]) / args["model_version"]
        given = json.loads(args["model_config"]).get("parameters", {})
        self.parameters = {name: value["string_value"] for name, value in given.items()}
        self.load()

    def load(self) -> None:
        """Reads what the model needs from ``self.folder`` and ``self.parameters``, its configuration's."""

    def answer(self, request: Any) -> Tensors:
        """Output tensors of one request. Raises BadImage, BadInput or InnerModelFailed."""
        raise AssertionError(f"{type(self).__name__} does not say how it answers")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Called by Triton with one or more requests; answers each, in order."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        codes = pb_utils.TritonError
        try:
            outputs = self.answer(request)
        except BadImage as error:
            return _failure(f"bad image: {error}", codes.INVALID_ARG)
        except BadInput as error:
            return _failure(f"bad input: {error}", codes.INVALID_ARG)
        except Exception as error:  # one request's surprise must not end the batch or the process
            return _failure(f"{type(error).__name__}: {error}", codes.INTERNAL)
        return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor(*item) for item in outputs.items()])


def _failure(message: str, code: Any) -> Any:
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(message, code))


def values(request: Any, name: str) -> list[bytes]:
    """The elements of a BYTES input [B,1]. Raises BadInput where it is missing."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    if tensor is None:
        raise BadInput(f"{name} is missing")
    return [bytes(value) for value in tensor.as_numpy().reshape(-1)]


def optional_values(request: Any, name: str, count: int) -> list[bytes | None]:
    """The elements of an optional BYTES input, or ``count`` times None. Raises BadInput on another count."""
    if pb_utils.get_input_tensor_by_name(request, name) is None:
        return [None] * count
    found = values(request, name)
    if len(found) != count:
        raise BadInput(f"{name} has {len(found)} elements, IMAGE has {count}")
    return list(found)


def text_of(value: bytes | None) -> str:
    """UTF-8 text; bytes that are none are replaced, None is the empty text."""
    return "" if value is None else value.decode("utf-8", "replace")
