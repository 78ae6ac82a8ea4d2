"""Builds ONNX graphs of transformers from a few parts, weights drawn from one seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

_OPSET, _IR_VERSION = 17, 8
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
HEADS = 4
# Random weights this small leave what was put into a vector readable, and still make every weight count.
_SMALL = 0.02

Values = NDArray[Any]


class Weights:
    """Initializers, shared by a graph and the branches inside it; the same for the same seed.

    ``spread`` is the deviation of those that are drawn.
    """

    def __init__(self, seed: int, spread: float = _SMALL) -> None:
        self.random, self.spread = np.random.default_rng(seed), spread
        self.tensors: list[onnx.TensorProto] = []

    def add(self, values: Values) -> str:
        """The name of a constant."""
        name = f"w{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name

    def drawn(self, *shape: int) -> str:
        """Small normal numbers."""
        return self.add((self.random.normal(size=shape) * self.spread).astype(np.float32))


class Nodes:
    """The nodes of one graph or branch, in order."""

    def __init__(self, weights: Weights, prefix: str = "n") -> None:
        self.weights, self.prefix = weights, prefix
        self.nodes: list[onnx.NodeProto] = []

    def add(self, operation: str, *inputs: str, **attributes: Any) -> str:
        """The name of a node's one output."""
        name = f"{self.prefix}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, list(inputs), [name], **attributes))
        return name

    def named(self, value: str, name: str) -> None:
        """Gives a value a name of its own."""
        self.nodes.append(helper.make_node("Identity", [value], [name]))

    def ints(self, *values: int) -> str:
        """A constant list of int64, such as a shape."""
        return self.weights.add(np.array(values, np.int64))

    def number(self, value: float) -> str:
        """A constant float."""
        return self.weights.add(np.array(value, np.float32))

    def normed(self, value: str, width: int) -> str:
        """Layer normalisation over the last axis."""
        scale, offset = np.ones(width, np.float32), np.zeros(width, np.float32)
        return self.add("LayerNormalization", value, self.weights.add(scale), self.weights.add(offset), axis=-1)

    def heads(self, value: str, width: int) -> str:
        """[B,S,D] to [B,heads,S,D/heads]."""
        split = self.add("Reshape", value, self.ints(0, 0, HEADS, width // HEADS))
        return self.add("Transpose", split, perm=[0, 2, 1, 3])

    def attended(self, query: str, key: str, value: str, width: int, mask: str = "") -> str:
        """Scaled dot-product attention over heads, [B,S,D]; ``mask`` is added to the scores."""
        across = self.add("Transpose", key, perm=[0, 1, 3, 2])
        scores = self.add("MatMul", query, across)
        scores = self.add("Mul", scores, self.number((width // HEADS) ** -0.5))
        if mask:
            scores = self.add("Add", scores, mask)
        mixed = self.add("MatMul", self.add("Softmax", scores, axis=-1), value)
        return self.add("Reshape", self.add("Transpose", mixed, perm=[0, 2, 1, 3]), self.ints(0, 0, width))

    def block(self, value: str, width: int, mask: str = "", carried: Values | None = None) -> str:
        """A transformer block, normalised before: attention, then two layers; ``carried`` is its value projection.

        What it carries is not normalised, so that a mean over tokens can be put together by hand.
        """
        normed = self.normed(value, width)
        query = self.heads(self.add("MatMul", normed, self.weights.drawn(width, width)), width)
        key = self.heads(self.add("MatMul", normed, self.weights.drawn(width, width)), width)
        source, projection = (normed, self.weights.drawn(width, width))
        if carried is not None:
            source, projection = value, self.weights.add(carried)
        held = self.heads(self.add("MatMul", source, projection), width)
        value = self.add("Add", value, self.attended(query, key, held, width, mask))
        inner = self.add("MatMul", self.normed(value, width), self.weights.drawn(width, 2 * width))
        inner = self.add("Mul", inner, self.add("Sigmoid", inner))
        return self.add("Add", value, self.add("MatMul", inner, self.weights.drawn(2 * width, width)))

    def patches(self, pixels: str, side: int, width: int) -> str:
        """Tokens [B,T,D] of an image [B,3,H,W]: one a square of ``side`` pixels, its mean colour in the first three."""
        kernel = self.weights.random.normal(size=(width, 3, side, side)) * _SMALL / side
        kernel[:3] = np.eye(3)[:, :, None, None] / side**2
        kernel = self.add("Conv", pixels, self.weights.add(kernel.astype(np.float32)), strides=[side, side])
        flat = self.add("Reshape", kernel, self.ints(0, width, -1))
        return self.add("Transpose", flat, perm=[0, 2, 1])

    def additive_mask(self, mask: str) -> str:
        """int64 [B,S], 1 for what counts, to [B,1,1,S], very negative elsewhere."""
        floats = self.add("Cast", mask, to=FLOAT)
        scaled = self.add("Mul", self.add("Sub", floats, self.number(1.0)), self.number(1e9))
        return self.add("Unsqueeze", scaled, self.ints(1, 2))


def tensor(name: str, kind: int, *shape: int | str) -> onnx.ValueInfoProto:
    """An input or output; names in its shape are free."""
    return helper.make_tensor_value_info(name, kind, list(shape))


def save(
    path: Path, nodes: Nodes, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]
) -> None:
    """Checks and writes the graph."""
    graph = helper.make_graph(nodes.nodes, "tiny", list(inputs), list(outputs), nodes.weights.tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString(deterministic=True))
