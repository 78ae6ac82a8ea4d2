"""Small edits of ready ONNX graphs: a uint8 RGB front and narrower outputs.

They keep float pixels and 18,710-wide character scores off the wire between models; weights stay untouched.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

IMAGE = "IMAGE"


def uint8_front(
    graph: onnx.GraphProto,
    *,
    scale: float,
    offset: float,
    bgr: bool,
    dims: Sequence[int | str],
) -> None:
    """Replaces the graph's only true input, float [B,3,H,W], by IMAGE, uint8 [B,H,W,3] in RGB, 0..255.

    The network then sees ``IMAGE * scale + offset``, channels reversed where ``bgr``. Works in place.
    """
    initializers = {tensor.name for tensor in graph.initializer}
    (inner,) = [value.name for value in graph.input if value.name not in initializers]
    kept = [value for value in graph.input if value.name in initializers]
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, list(dims)))
    graph.input.extend(kept)
    constants = {"front_scale": np.float32(scale), "front_offset": np.float32(offset)}
    nodes, last = [], IMAGE
    if bgr:
        graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0], np.int64), "front_bgr"))
        nodes.append(helper.make_node("Gather", [last, "front_bgr"], ["front_0"], axis=3))
        last = "front_0"
    nodes.append(helper.make_node("Cast", [last], ["front_1"], to=TensorProto.FLOAT))
    for name, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    nodes.append(helper.make_node("Mul", ["front_1", "front_scale"], ["front_2"]))
    nodes.append(helper.make_node("Add", ["front_2", "front_offset"], ["front_3"]))
    nodes.append(helper.make_node("Transpose", ["front_3"], [inner], perm=[0, 3, 1, 2]))
    for node in reversed(nodes):
        graph.node.insert(0, node)


def rename_output(graph: onnx.GraphProto, old: str, new: str, dims: Sequence[int | str]) -> None:
    """Gives the float output ``old`` the name ``new`` and the shape ``dims``, in place."""
    kept = [value for value in graph.output if value.name != old]
    del graph.output[:]
    graph.output.extend(kept)
    graph.node.append(helper.make_node("Identity", [old], [new]))
    graph.output.append(helper.make_tensor_value_info(new, TensorProto.FLOAT, list(dims)))


def text_detector(source: Path, target: Path) -> None:
    """PP-OCR detector -> IMAGE uint8 [B,H,W,3] (H, W multiples of 32), PROBABILITY float32 [B,1,H,W] in 0..1."""
    model = onnx.load(source)
    # PaddleOCR trains on OpenCV images (BGR) scaled to -1..1.
    uint8_front(model.graph, scale=1 / 127.5, offset=-1.0, bgr=True, dims=["B", "H", "W", 3])
    rename_output(model.graph, model.graph.output[0].name, "PROBABILITY", ["B", 1, "H", "W"])
    save(model, target)


def text_reader(source: Path, target: Path, characters: Path) -> None:
    """PP-OCR reader -> IMAGE uint8 [B,48,W,3]; INDEX int64, PROBABILITY and SPACE float32 [B,T].

    INDEX and PROBABILITY are the best character of a step; SPACE is the probability of a space there, best or not.
    ``characters`` receives the alphabet, one character a line, line 0 being the CTC blank (an empty line).
    """
    model = onnx.load(source)
    graph = model.graph
    uint8_front(graph, scale=1 / 127.5, offset=-1.0, bgr=True, dims=["B", 48, "W", 3])
    scores = graph.output[0].name
    graph.node.append(helper.make_node("ArgMax", [scores], ["INDEX"], axis=2, keepdims=0))
    graph.node.append(helper.make_node("ReduceMax", [scores], ["PROBABILITY"], axes=[2], keepdims=0))
    (listed,) = [entry.value for entry in model.metadata_props if entry.key == "character"]
    alphabet = ["", *listed.splitlines(), " "]
    graph.initializer.append(numpy_helper.from_array(np.array(len(alphabet) - 1, np.int64), "space_index"))
    graph.node.append(helper.make_node("Gather", [scores, "space_index"], ["SPACE"], axis=2))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("INDEX", TensorProto.INT64, ["B", "T"]))
    for name in ("PROBABILITY", "SPACE"):
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", "T"]))
    characters.write_text("\n".join(alphabet), encoding="utf-8")
    save(model, target)


def face_detector(source: Path, target: Path) -> None:
    """YuNet -> IMAGE uint8 [1,H,W,3], H and W multiples of 32; its twelve outputs [1,N,C] keep their names.

    The network is convolutions and reshapes without a fixed length: only the file says 640 x 640.
    """
    model = onnx.load(source)
    uint8_front(model.graph, scale=1.0, offset=0.0, bgr=True, dims=[1, "H", "W", 3])
    del model.graph.value_info[:]
    for output in model.graph.output:
        name, stride = output.name, output.name.rpartition("_")[2]
        output.type.tensor_type.shape.dim[1].dim_param = f"N{stride}"
        assert output.type.tensor_type.shape.dim[0].dim_value == 1, f"{name} is not [1,N,C]"
    save(model, target)


def face_encoder(source: Path, target: Path) -> None:
    """SFace -> IMAGE uint8 [1,112,112,3] of an aligned face; VECTOR float32 [1,128], of any length."""
    model = onnx.load(source)
    uint8_front(model.graph, scale=1.0, offset=0.0, bgr=False, dims=[1, 112, 112, 3])
    rename_output(model.graph, model.graph.output[0].name, "VECTOR", [1, 128])
    save(model, target)


def save(model: onnx.ModelProto, target: Path) -> None:
    """Checks the model and writes it, byte for byte the same for the same input."""
    onnx.checker.check_model(model)
    target.write_bytes(model.SerializeToString(deterministic=True))
