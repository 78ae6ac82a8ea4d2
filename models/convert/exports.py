"""Brings ONNX exports of transformers under our names: exporters call the same tensors differently.

Only inputs and outputs are touched; weights and nodes stay as they are. The names are those of Optimum's exporter
(huggingface/optimum, `optimum/exporters/onnx`) and of sentence-transformers' own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
from onnx import helper

# What a graph may ask for that we never give: one kind of segment, so zeros of the ids' shape.
_SEGMENTS = "token_type_ids"


def image_tower(source: Path, target: Path) -> None:
    """pixel_values float32 [B,3,H,W] -> embedding float32 [B,D], not of length one."""
    adapt(source, target, {"pixel_values": ("pixel_values",)}, {"embedding": ("image_embeds", "pooler_output")})


def text_tower(source: Path, target: Path) -> None:
    """input_ids int64 [B,S] -> embedding float32 [B,D], not of length one."""
    adapt(source, target, {"input_ids": ("input_ids",)}, {"embedding": ("text_embeds", "pooler_output")})


def caption_vision(source: Path, target: Path) -> None:
    """pixel_values float32 [B,3,H,W] -> image_features float32 [B,T,D]."""
    outputs = {"image_features": ("image_features", "last_hidden_state")}
    adapt(source, target, {"pixel_values": ("pixel_values",)}, outputs)


def caption_encoder(source: Path, target: Path) -> None:
    """inputs_embeds float32 [B,S,D], attention_mask int64 [B,S] -> last_hidden_state float32 [B,S,D]."""
    inputs = {"inputs_embeds": ("inputs_embeds",), "attention_mask": ("attention_mask",)}
    adapt(source, target, inputs, {"last_hidden_state": ("last_hidden_state",)})


def sentence_encoder(source: Path, target: Path) -> None:
    """input_ids, attention_mask int64 [B,S] -> last_hidden_state float32 [B,S,D]."""
    inputs = {"input_ids": ("input_ids",), "attention_mask": ("attention_mask",)}
    adapt(source, target, inputs, {"last_hidden_state": ("last_hidden_state", "token_embeddings")})


def adapt(
    source: Path, target: Path, inputs: Mapping[str, Sequence[str]], outputs: Mapping[str, Sequence[str]]
) -> None:
    """Writes the graph with our names; each may have several in exports, the first that is there is meant.

    Raises ValueError for a graph that lacks one, asks for more, or has a fixed number of images or texts.
    """
    model = onnx.load(source)
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    true_inputs = [value for value in graph.input if value.name not in weights]
    chosen = _chosen([value.name for value in true_inputs], inputs)
    for value in true_inputs:
        if value.name in chosen and value.type.tensor_type.shape.dim[0].HasField("dim_value"):
            raise ValueError(f"{value.name} has a fixed batch, so nothing can be batched")
        if value.name == _SEGMENTS:
            graph.input.remove(value)
            ids = next(name for name, ours in chosen.items() if ours == "input_ids")
            graph.node.insert(0, helper.make_node("Sub", [ids, ids], [_SEGMENTS]))
        elif value.name not in chosen:
            raise ValueError(f"the graph asks for {value.name}, which is not known here")
    kept = _chosen([value.name for value in graph.output], outputs)
    for value in [value for value in graph.output if value.name not in kept]:
        graph.output.remove(value)
    for old, new in (*chosen.items(), *kept.items()):
        _rename(graph, old, new)
    onnx.checker.check_model(model)
    target.write_bytes(model.SerializeToString(deterministic=True))


def _chosen(present: Sequence[str], wanted: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """From the graph's name to ours. Raises ValueError."""
    found = {}
    for ours, names in wanted.items():
        theirs = next((name for name in names if name in present), None)
        if theirs is None:
            raise ValueError(f"the graph has {', '.join(present)}, none of {', '.join(names)}")
        found[theirs] = ours
    return found


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """A tensor's name, wherever it stands in the outer graph."""
    if old == new:
        return
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for value in (*graph.input, *graph.output):
        if value.name == old:
            value.name = new
