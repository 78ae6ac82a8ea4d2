"""``python -m models.train_logos.export encoder|detector STATE FILE``: a trained state as ONNX.

Weights are kept as bytes with a scale for each output channel: a quarter of the size, and the same answers to 0.001.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from models.train_logos.networks import Detector, Encoder

_OPSET = 13
_SMALL = 1024  # values; a tensor of fewer is kept as it is


class _PatchesIn(nn.Module):
    """PATCH uint8 [B,64,64] -> VECTOR float32 [B,128], unit length."""

    def __init__(self, network: Encoder) -> None:
        super().__init__()
        self.network = network

    def forward(self, patch: Tensor) -> Tensor:
        return self.network(patch.float()[:, None] / 127.5 - 1)


class _PictureIn(nn.Module):
    """IMAGE uint8 [B,H,W,3] RGB -> SCORES float32 [B,1,H/8,W/8] in 0..1, SIDES float32 [B,4,H/8,W/8] in cells."""

    def __init__(self, network: Detector) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        scores, sides = self.network(image.float().permute(0, 3, 1, 2) / 127.5 - 1)
        return torch.sigmoid(scores), sides


def write(kind: str, state: Path, target: Path) -> None:
    """Exports a state that ``train`` made."""
    network: nn.Module
    if kind == "encoder":
        network, example = _PatchesIn(Encoder()), torch.zeros(2, 64, 64, dtype=torch.uint8)
        inputs, outputs, axes = ["PATCH"], ["VECTOR"], {0: "B"}
        free = {"PATCH": axes, "VECTOR": axes}
    else:
        network, example = _PictureIn(Detector()), torch.zeros(1, 320, 320, 3, dtype=torch.uint8)
        inputs, outputs = ["IMAGE"], ["SCORES", "SIDES"]
        cells = {0: "B", 2: "h", 3: "w"}
        free = {"IMAGE": {0: "B", 1: "H", 2: "W"}, "SCORES": cells, "SIDES": cells}
    network.network.load_state_dict(torch.load(state, weights_only=True))
    network.eval()
    buffer = io.BytesIO()
    torch.onnx.export(
        network, (example,), buffer, input_names=inputs, output_names=outputs, dynamic_axes=free,
        opset_version=_OPSET, dynamo=False,
    )  # fmt: skip
    model = onnx.load_from_string(buffer.getvalue())
    _shrink(model.graph)
    onnx.checker.check_model(model)
    target.write_bytes(model.SerializeToString(deterministic=True))


def _shrink(graph: onnx.GraphProto) -> None:
    """Large weights become int8 with a scale for each output channel, in place."""
    kept, nodes = [], []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < _SMALL or values.ndim < 2:
            kept.append(tensor)
            continue
        scales = np.abs(values.reshape(len(values), -1)).max(axis=1).astype(np.float32) / 127 + np.float32(1e-12)
        bytes_ = np.round(values / scales.reshape(-1, *[1] * (values.ndim - 1))).astype(np.int8)
        name = tensor.name
        kept += [
            numpy_helper.from_array(bytes_, f"{name}.bytes"),
            numpy_helper.from_array(scales, f"{name}.scales"),
            numpy_helper.from_array(np.zeros(len(scales), np.int8), f"{name}.zero"),
        ]
        inputs = [f"{name}.bytes", f"{name}.scales", f"{name}.zero"]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [name], axis=0))
    del graph.initializer[:]
    graph.initializer.extend(kept)
    for node in reversed(nodes):
        graph.node.insert(0, node)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m models.train_logos.export", description=__doc__)
    parser.add_argument("network", choices=("encoder", "detector"))
    parser.add_argument("state", type=Path)
    parser.add_argument("target", type=Path)
    given = parser.parse_args()
    write(given.network, given.state, given.target)


if __name__ == "__main__":
    main()
