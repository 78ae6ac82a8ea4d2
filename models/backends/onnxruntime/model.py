"""A stand-in for Triton's onnxruntime backend where there is none: the same configs, served on the CPU.

GPU images bring the real C++ backend; leave this file out there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One process and one onnxruntime session a model; requests are run one by one, in order."""

    def initialize(self, args: Mapping[str, str]) -> None:
        config = json.loads(args["model_config"])
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs = [tensor["name"] for tensor in config["output"]]
        options = onnxruntime.SessionOptions()
        # Threads that spin between calls doubled the CPU cost; parallelism comes from concurrent requests.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Inputs vary in size: an arena would keep the largest ever seen.
        options.enable_cpu_mem_arena = False
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Called by Triton; each request answers or fails alone."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        try:
            feed = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
            results = self.session.run(self.outputs, feed)
        except Exception as error:  # onnxruntime has no common base class for its failures
            message = f"onnxruntime: {error}"
            return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(message))
        tensors = [pb_utils.Tensor(*item) for item in zip(self.outputs, results, strict=True)]
        return pb_utils.InferenceResponse(output_tensors=tensors)
