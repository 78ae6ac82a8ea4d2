"""SSD-MobileNetV2 (COCO) from a TensorFlow.js graph model to ONNX: the network, the box decoding and the best class.

The graph's own resize loop is left out: the caller hands in 300x300 pixels, and suppresses overlapping boxes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.convert.fronts import save, uint8_front

_PIXELS = "Preprocessor/sub"  # the scaled image, where our graph begins
_BOXES, _SCORES, _ANCHORS = "Squeeze", "Postprocessor/convert_scores", "Postprocessor/ExpandDims"
_CLASSES = 91  # COCO ids 0..90, 0 being the background
_VARIANCES = np.array([0.1, 0.1, 0.2, 0.2], np.float32)  # of centre y, centre x, height, width
_BATCH_NORM_EPSILON = 1e-3
_OPSET = 13
Node = dict[str, Any]


def read_weights(model: dict[str, Any], files: Mapping[str, Path]) -> dict[str, NDArray[Any]]:
    """Constants of a tfjs model by name; ``files`` gives its shards by file name."""
    weights: dict[str, NDArray[Any]] = {}
    for group in model["weightsManifest"]:
        data, offset = b"".join(files[path].read_bytes() for path in group["paths"]), 0
        for entry in group["weights"]:
            dtype = np.dtype(entry["dtype"]).newbyteorder("<")
            count = int(np.prod(entry["shape"]))
            weights[entry["name"]] = np.frombuffer(data, dtype, count, offset).reshape(entry["shape"])
            offset += count * dtype.itemsize
    return weights


class _Translator:
    """Walks the TensorFlow graph from an output back to the pixels; tensors inside are NCHW."""

    def __init__(self, nodes: dict[str, Node], weights: dict[str, NDArray[Any]]) -> None:
        self.source, self.weights = nodes, weights
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {"zero": np.float32(0), "six": np.float32(6)}  # type: ignore[dict-item]
        self.done = {_PIXELS}
        self.rules: dict[str, Callable[[Node, list[str]], None]] = {
            "Conv2D": self._conv,
            "DepthwiseConv2dNative": self._depthwise,
            "Relu6": lambda node, inputs: self.emit("Clip", [*inputs, "zero", "six"], node["name"]),
            "Sigmoid": lambda node, inputs: self.emit("Sigmoid", inputs, node["name"]),
            "Add": self._binary("Add"),
            "AddN": self._binary("Add"),
            "BiasAdd": self._binary("Add"),
            "Mul": self._binary("Mul"),
            "FusedBatchNorm": self._batch_norm,
            "Reshape": self._reshape,
            "ConcatV2": lambda node, inputs: self.emit("Concat", inputs[:-1], node["name"], axis=1),
            "Squeeze": lambda node, inputs: self.emit("Identity", inputs, node["name"]),
        }

    def emit(self, op: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))

    def visit(self, name: str) -> None:
        """Adds ``name`` and all it needs, inputs first."""
        node = self.source[name]
        if name in self.done or node["op"] == "Const":
            return
        self.done.add(name)
        # Shapes and axes of these are rewritten by the rules, so only their data is followed.
        followed = node["input"][:1] if node["op"] == "Reshape" else node["input"]
        for needed in followed:
            self.visit(needed)
        if node["op"] not in self.rules:
            raise ValueError(f"{name}: operation {node['op']} is not expected in this network")
        self.rules[node["op"]](node, list(node["input"]))

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        self.constants[name] = np.ascontiguousarray(value, np.float32)
        return name

    def _strides(self, node: Node) -> dict[str, Any]:
        sizes = [int(value) for value in node["attr"]["strides"]["list"]["i"]][1:3]
        padding = bytes(node["attr"]["padding"]["s"]).decode()
        if padding not in {"SAME", "VALID"}:
            raise ValueError(f"{node['name']}: padding {padding} is not known")
        return {"strides": sizes, "auto_pad": "SAME_UPPER" if padding == "SAME" else "VALID"}

    def _conv(self, node: Node, inputs: list[str]) -> None:
        weight = self.weights[inputs[1]].transpose(3, 2, 0, 1)
        self.emit("Conv", [inputs[0], self._constant(inputs[1], weight)], node["name"], **self._strides(node))

    def _depthwise(self, node: Node, inputs: list[str]) -> None:
        weight = self.weights[inputs[1]].transpose(2, 3, 0, 1)
        names = [inputs[0], self._constant(inputs[1], weight)]
        self.emit("Conv", names, node["name"], group=weight.shape[0], **self._strides(node))

    def _binary(self, op: str) -> Callable[[Node, list[str]], None]:
        def rule(node: Node, inputs: list[str]) -> None:
            names = [
                self._constant(name, self.weights[name].reshape(-1, 1, 1)) if name in self.weights else name
                for name in inputs
            ]
            self.emit(op, names, node["name"])

        return rule

    def _batch_norm(self, node: Node, inputs: list[str]) -> None:
        names = [inputs[0], *(self._constant(name, self.weights[name]) for name in inputs[1:])]
        self.emit("BatchNormalization", names, node["name"], epsilon=_BATCH_NORM_EPSILON)

    def _reshape(self, node: Node, inputs: list[str]) -> None:
        # A head: [B,C,h,w] -> [B, anchors, 4 or 91]; the target's batch size was computed by the graph.
        width = _CLASSES if node["name"].endswith("Reshape_1") else 4
        shape_name = f"head/{width}"
        self.constants[shape_name] = np.array([0, -1, width], np.int64)
        self.emit("Transpose", [inputs[0]], f"{node['name']}/nhwc", perm=[0, 2, 3, 1])
        self.emit("Reshape", [f"{node['name']}/nhwc", shape_name], node["name"])


def _decode_boxes(translator: _Translator) -> None:
    """BOXES: the SSD decoding of Liu et al. 2016, corners (top, left, bottom, right) in shares of the image."""
    anchors = translator.weights[_ANCHORS].reshape(1, -1, 4)
    sizes = anchors[..., 2:] - anchors[..., :2]
    constants = {"anchor/centre": anchors[..., :2] + sizes / 2, "anchor/size": sizes, "variances": _VARIANCES, "two": 2}
    for name, value in constants.items():
        translator.constants[name] = np.asarray(value, np.float32)
    translator.constants["halves"] = np.array([2, 2], np.int64)
    emit = translator.emit
    emit("Mul", [_BOXES, "variances"], "encoded")
    translator.nodes.append(helper.make_node("Split", ["encoded", "halves"], ["shift", "growth"], axis=2))
    emit("Mul", ["shift", "anchor/size"], "moved")
    emit("Add", ["moved", "anchor/centre"], "centre")
    emit("Exp", ["growth"], "factor")
    emit("Mul", ["factor", "anchor/size"], "size")
    emit("Div", ["size", "two"], "half")
    emit("Sub", ["centre", "half"], "top_left")
    emit("Add", ["centre", "half"], "bottom_right")
    emit("Concat", ["top_left", "bottom_right"], "BOXES", axis=2)


def _best_class(translator: _Translator) -> None:
    """CONFIDENCE and CLASS of every anchor, the background left out, so that 1917x91 scores stay inside."""
    for name, value in {"from": [1], "to": [_CLASSES], "axis": [2]}.items():
        translator.constants[f"objects/{name}"] = np.array(value, np.int64)
    translator.emit("Slice", [_SCORES, "objects/from", "objects/to", "objects/axis"], "objects")
    translator.emit("ReduceMax", ["objects"], "CONFIDENCE", axes=[2], keepdims=0)
    translator.emit("ArgMax", ["objects"], "CLASS", axis=2, keepdims=0)


def convert(files: Mapping[str, Path], target: Path) -> None:
    """IMAGE uint8 [B,300,300,3] -> BOXES float32 [B,1917,4]; CONFIDENCE float32, CLASS int64 [B,1917] (COCO id - 1)."""
    model = json.loads(files["model.json"].read_text())
    nodes = {node["name"]: {"input": [], **node} for node in model["modelTopology"]["node"]}
    translator = _Translator(nodes, read_weights(model, files))
    translator.visit(_BOXES)
    translator.visit(_SCORES)
    _decode_boxes(translator)
    _best_class(translator)
    anchors = translator.weights[_ANCHORS].shape[1]
    outputs = [
        helper.make_tensor_value_info("BOXES", TensorProto.FLOAT, ["B", anchors, 4]),
        helper.make_tensor_value_info("CONFIDENCE", TensorProto.FLOAT, ["B", anchors]),
        helper.make_tensor_value_info("CLASS", TensorProto.INT64, ["B", anchors]),
    ]
    pixels = helper.make_tensor_value_info(_PIXELS, TensorProto.FLOAT, ["B", 3, 300, 300])
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in translator.constants.items()]
    graph = helper.make_graph(translator.nodes, "ssd_mobilenet_v2", [pixels], outputs, constants)
    uint8_front(graph, scale=2 / 255, offset=-1.0, bgr=False, dims=["B", 300, 300, 3])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8), target)
