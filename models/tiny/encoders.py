"""Tiny two-tower and sentence encoders: a colour's picture lies near its word, a word near its translations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.tiny.graph import FLOAT, INT64, Nodes, Weights, save, tensor
from models.tiny.vocabulary import COLOURS, CONCEPTS, colour_vector, words

_WIDTH, _EMBEDDING = 32, 768
_SIDE_PX, _PATCH_PX = 224, 16
_JOINT_TOKENS, _SENTENCE_TOKENS = 64, 512
_SEED = 20_261


def joint(folder: Path) -> None:
    """Both towers of a SigLIP-like encoder (Zhai et al. 2023), 768 dimensions, and what prepares their inputs."""
    head = np.random.default_rng(_SEED).normal(size=(_WIDTH, _EMBEDDING)).astype(np.float32)
    _vision(folder / "onnx" / "vision_model.onnx", head)
    tokenizer = words(folder, ["a picture of the sky", *COLOURS], length=_JOINT_TOKENS, pad="</s>")
    order = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    table = np.stack([colour_vector(word, _WIDTH) for word, _ in order])
    _text(folder / "onnx" / "text_model.onnx", head, table)
    config = {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"height": _SIDE_PX, "width": _SIDE_PX},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(config))


def _vision(path: Path, head: NDArray[np.float32]) -> None:
    nodes = Nodes(Weights(_SEED + 1))
    tokens = nodes.patches("pixel_values", _PATCH_PX, _WIDTH)
    count = (_SIDE_PX // _PATCH_PX) ** 2
    tokens = nodes.add("Add", tokens, nodes.weights.drawn(1, count, _WIDTH))
    nodes.named(nodes.block(tokens, _WIDTH), "last_hidden_state")
    # SigLIP pools by attention from a learnt probe; the probe is the same for every image of the batch.
    batch = nodes.add("Slice", nodes.add("Shape", "pixel_values"), nodes.ints(0), nodes.ints(1))
    shape = nodes.add("Concat", batch, nodes.ints(1, _WIDTH), axis=0)
    probe = nodes.heads(nodes.add("Expand", nodes.weights.drawn(1, 1, _WIDTH), shape), _WIDTH)
    held = nodes.heads("last_hidden_state", _WIDTH)
    pooled = nodes.add("Squeeze", nodes.attended(probe, held, held, _WIDTH), nodes.ints(1))
    nodes.named(nodes.add("MatMul", pooled, nodes.weights.add(head)), "pooler_output")
    outputs = [tensor("last_hidden_state", FLOAT, "B", count, _WIDTH), tensor("pooler_output", FLOAT, "B", _EMBEDDING)]
    save(path, nodes, [tensor("pixel_values", FLOAT, "B", 3, _SIDE_PX, _SIDE_PX)], outputs)


def _text(path: Path, head: NDArray[np.float32], table: NDArray[np.float32]) -> None:
    nodes = Nodes(Weights(_SEED + 2))
    tokens = nodes.add("Gather", nodes.weights.add(table), "input_ids", axis=0)
    tokens = nodes.add("Add", tokens, nodes.weights.drawn(1, _JOINT_TOKENS, _WIDTH))
    # The last token speaks for the text, so attention's mean over all tokens has to bring the words there.
    carried = np.eye(_WIDTH, dtype=np.float32) * (np.arange(_WIDTH) < 3) * _JOINT_TOKENS
    nodes.named(nodes.block(tokens, _WIDTH, carried=carried.astype(np.float32)), "last_hidden_state")
    last = nodes.add("Gather", "last_hidden_state", nodes.weights.add(np.array(-1, np.int64)), axis=1)
    nodes.named(nodes.add("MatMul", last, nodes.weights.add(head)), "pooler_output")
    outputs = [
        tensor("last_hidden_state", FLOAT, "B", _JOINT_TOKENS, _WIDTH),
        tensor("pooler_output", FLOAT, "B", _EMBEDDING),
    ]
    save(path, nodes, [tensor("input_ids", INT64, "B", _JOINT_TOKENS)], outputs)


def sentences(folder: Path) -> None:
    """An E5-like encoder (Wang et al. 2024) with mask, 768 dimensions a token; asks for segments as some exports do."""
    known = ["query", ":", "the", "and", *(word for concept in CONCEPTS for word in concept)]
    tokenizer = words(folder, known, length=_SENTENCE_TOKENS, pad="<pad>")
    weights = Weights(_SEED + 3)
    table = weights.random.normal(size=(tokenizer.get_vocab_size(), _WIDTH)).astype(np.float32) * 0.1
    for concept in CONCEPTS:
        meaning = weights.random.normal(size=_WIDTH)
        for word in concept:
            table[tokenizer.token_to_id(word.lower())] += meaning.astype(np.float32)
    nodes = Nodes(weights)
    tokens = nodes.add("Gather", weights.add(table), "input_ids", axis=0)
    segments = nodes.add("Gather", weights.drawn(2, _WIDTH), "token_type_ids", axis=0)
    states = nodes.block(nodes.add("Add", tokens, segments), _WIDTH, nodes.additive_mask("attention_mask"))
    nodes.named(nodes.add("MatMul", states, weights.drawn(_WIDTH, _EMBEDDING)), "last_hidden_state")
    inputs = [tensor(name, INT64, "B", "S") for name in ("input_ids", "attention_mask", "token_type_ids")]
    save(folder / "model.onnx", nodes, inputs, [tensor("last_hidden_state", FLOAT, "B", "S", _EMBEDDING)])
