"""EfficientNet-Lite0 from its PyTorch checkpoint to ONNX, batch norms folded, TensorFlow padding kept.

Architecture: Tan & Le 2019 (EfficientNet), the "lite" variant of TensorFlow's TPU models: no squeeze-excite, ReLU6.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.convert.fronts import IMAGE, save, uint8_front
from models.convert.torch_file import read_tensors

# (repeats, kernel, stride of the first, expansion) of each stage.
_STAGES = ((1, 3, 1, 1), (2, 3, 2, 6), (2, 5, 2, 6), (3, 3, 2, 6), (3, 5, 1, 6), (4, 5, 2, 6), (1, 3, 1, 6))
_BATCH_NORM_EPSILON = 1e-3
_OPSET = 13


class _Builder:
    """Collects nodes; each method adds a layer and returns the name of its output."""

    def __init__(self, tensors: dict[str, NDArray[Any]]) -> None:
        self.tensors = tensors
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def conv(self, source: str, name: str, norm: str, *, kernel: int, stride: int, relu: bool) -> str:
        weight, get = self.tensors[f"{name}.weight"], self.tensors.__getitem__
        factor = get(f"{norm}.weight") / np.sqrt(get(f"{norm}.running_var") + _BATCH_NORM_EPSILON)
        bias = get(f"{norm}.bias") - get(f"{norm}.running_mean") * factor
        weight_name = self.constant(f"{name}.w", (weight * factor[:, None, None, None]).astype(np.float32))
        bias_name = self.constant(f"{name}.b", bias.astype(np.float32))
        output = self.add(
            "Conv",
            [source, weight_name, bias_name],
            f"{name}.out",
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            group=weight.shape[0] if "depthwise" in name else 1,
            auto_pad="SAME_UPPER",
        )
        return self.add("Clip", [output, "zero", "six"], f"{name}.relu") if relu else output

    def block(self, source: str, index: int, *, kernel: int, stride: int, expand: bool, skip: bool) -> str:
        base, last = f"_blocks.{index}", source
        if expand:
            last = self.conv(last, f"{base}._expand_conv", f"{base}._bn0", kernel=1, stride=1, relu=True)
        depthwise = f"{base}._depthwise_conv"
        last = self.conv(last, depthwise, f"{base}._bn1", kernel=kernel, stride=stride, relu=True)
        last = self.conv(last, f"{base}._project_conv", f"{base}._bn2", kernel=1, stride=1, relu=False)
        return self.add("Add", [last, source], f"{base}.out") if skip else last


def convert(source: Path, target: Path) -> None:
    """Writes IMAGE uint8 [B,224,224,3] -> FEATURES float32 [B,1280] (pooled), PROBABILITIES float32 [B,1000]."""
    builder = _Builder(read_tensors(source))
    builder.constant("zero", np.asarray(0, np.float32))
    builder.constant("six", np.asarray(6, np.float32))
    last = builder.conv("pixels", "_conv_stem", "_bn0", kernel=3, stride=2, relu=True)
    index = 0
    for repeats, kernel, first_stride, expansion in _STAGES:
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            last = builder.block(
                last, index, kernel=kernel, stride=stride, expand=expansion > 1, skip=repeat > 0 and stride == 1
            )
            index += 1
    last = builder.conv(last, "_conv_head", "_bn1", kernel=1, stride=1, relu=True)
    pooled = builder.add("GlobalAveragePool", [last], "pooled")
    builder.add("Flatten", [pooled], "FEATURES", axis=1)
    weight = builder.constant("_fc.w", builder.tensors["_fc.weight"])
    bias = builder.constant("_fc.b", builder.tensors["_fc.bias"])
    builder.add("Gemm", ["FEATURES", weight, bias], "logits", transB=1)
    builder.add("Softmax", ["logits"], "PROBABILITIES", axis=1)
    graph = helper.make_graph(
        builder.nodes,
        "efficientnet_lite0",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["B", 3, 224, 224])],
        [
            helper.make_tensor_value_info("FEATURES", TensorProto.FLOAT, ["B", 1280]),
            helper.make_tensor_value_info("PROBABILITIES", TensorProto.FLOAT, ["B", 1000]),
        ],
        builder.constants,
    )
    uint8_front(graph, scale=1 / 128, offset=-127 / 128, bgr=False, dims=["B", 224, 224, 3])
    assert graph.input[0].name == IMAGE
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8), target)
