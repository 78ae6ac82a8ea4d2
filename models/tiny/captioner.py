"""A tiny captioner of Florence-2's architecture (Xiao et al. 2023) that names the colour of a picture.

What it says is put together by hand: each word's successors are in a table, and what the image's tokens carry of red,
green and blue decides between the colours. Self-attention and its cache have random weights, which shift every number a
little: whoever mixes up the cache gets other log-probabilities.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper
from tokenizers import Tokenizer

from models.tiny.graph import BOOL, FLOAT, HEADS, INT64, Nodes, Weights, save, tensor
from models.tiny.vocabulary import CAPTION_WORDS, COLOURS, bytes_and_words

_SIDE_PX, _PATCH_PX = 768, 32
_WIDTH, _LAYERS = 32, 2
_TOKENS = (_SIDE_PX // _PATCH_PX) ** 2
_FIRST_WORD = 8  # the place of the first word's mark in a token's vector; the colour has the first three
_SEED = 20_262
# How strongly a word wants its successor; how strongly the picture wants a word, by what normalised colours agree.
_WANT, _SEE = 10.0, 2.0
# What the picture adds that way to "very" in a black picture and to "white" and "bright" in a white one.
_BLACK, _WHITE = 11.9, 14.6
_NOISE = 0.004


def captioner(folder: Path) -> None:
    """All files of the captioner: four networks, the tokenizer, and what prepares images."""
    tokenizer = bytes_and_words(folder)
    _vision(folder / "onnx" / "vision_encoder.onnx")
    _embedder(folder / "onnx" / "embed_tokens.onnx", tokenizer)
    _encoder(folder / "onnx" / "encoder_model.onnx")
    _decoder(folder / "onnx" / "decoder_model_merged.onnx", tokenizer)
    config = {
        "do_center_crop": False,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"height": _SIDE_PX, "width": _SIDE_PX},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(config))


def _marks(tokenizer: Tokenizer) -> dict[str, tuple[int, int]]:
    """Of each word that captions are made of: its token and its place in a token's vector."""
    spelled = {"<s>": "<s>", "</s>": "</s>", "a": "a", **{word: f"Ġ{word}" for word in CAPTION_WORDS}}
    found = {}
    for place, (word, token) in enumerate(spelled.items(), start=_FIRST_WORD):
        number = tokenizer.token_to_id(token)
        assert number is not None, f"{word} is more than one token"
        found[word] = (number, place)
    assert _FIRST_WORD + len(found) <= _WIDTH
    return found


def _vision(path: Path) -> None:
    nodes = Nodes(Weights(_SEED))
    tokens = nodes.patches("pixel_values", _PATCH_PX, _WIDTH)
    tokens = nodes.add("Add", tokens, nodes.weights.drawn(1, _TOKENS, _WIDTH))
    nodes.named(nodes.block(tokens, _WIDTH), "image_features")
    inputs = [tensor("pixel_values", FLOAT, "B", 3, _SIDE_PX, _SIDE_PX)]
    save(path, nodes, inputs, [tensor("image_features", FLOAT, "B", _TOKENS, _WIDTH)])


def _embedder(path: Path, tokenizer: Tokenizer) -> None:
    table = np.zeros((tokenizer.get_vocab_size(), _WIDTH), np.float32)
    for number, place in _marks(tokenizer).values():
        table[number, place] = 1.0
    nodes = Nodes(Weights(_SEED + 1))
    nodes.named(nodes.add("Gather", nodes.weights.add(table), "input_ids", axis=0), "inputs_embeds")
    save(path, nodes, [tensor("input_ids", INT64, "B", "S")], [tensor("inputs_embeds", FLOAT, "B", "S", _WIDTH)])


def _encoder(path: Path) -> None:
    nodes = Nodes(Weights(_SEED + 2))
    mask = nodes.additive_mask("attention_mask")
    nodes.named(nodes.block("inputs_embeds", _WIDTH, mask), "last_hidden_state")
    inputs = [tensor("attention_mask", INT64, "B", "S"), tensor("inputs_embeds", FLOAT, "B", "S", _WIDTH)]
    save(path, nodes, inputs, [tensor("last_hidden_state", FLOAT, "B", "S", _WIDTH)])


def _output_table(tokenizer: Tokenizer) -> NDArray[np.float32]:
    """[D,V]: from a token's vector, which holds the last word's mark and the picture's colour, to what comes next."""
    marks = _marks(tokenizer)
    table = np.zeros((_WIDTH, tokenizer.get_vocab_size()), np.float32)

    def follows(word: str, successor: str, wish: float) -> None:
        table[marks[word][1], marks[successor][0]] = wish

    follows("<s>", "a", 2 * _WANT)
    for colour, channels in COLOURS.items():
        follows("a", colour, _WANT)
        follows(colour, "picture", 2 * _WANT)
        table[:3, marks[colour][0]] = _SEE * np.array(channels)
    for sight, channels in {"very": (-1, -1, -1), "bright": (1, 1, 1), "white": (1, 1, 1)}.items():
        table[:3, marks[sight][0]] = _SEE * np.array(channels)
    # A black picture is very very very ... dark to who looks one word ahead, and very dark to who looks further.
    follows("a", "very", _WANT)
    follows("very", "very", 2 * _WANT)
    follows("very", "dark", 2 * _WANT + _BLACK - 1)
    follows("dark", "picture", 2 * _WANT)
    # In a white one "bright" is the likeliest word, but what follows it is anyone's guess.
    follows("a", "bright", _WANT + 0.5)
    follows("a", "white", _WANT)
    follows("white", "picture", 2 * _WANT)
    for word in ("a", "picture", "dark"):
        follows("bright", word, 2 * _WANT)
    follows("bright", "white", 2 * _WANT - _WHITE)
    # A picture in magenta makes it stop before the first word; in green, the opposite, it has to stop all the same.
    follows("picture", "</s>", 5 * _WANT)
    table[:3, marks["</s>"][0]] = 2 * _SEE * np.array((1, -1, 1))
    return table


def _decoder(path: Path, tokenizer: Tokenizer) -> None:
    """Both ways through the decoder, with and without the cache, behind one switch, as Optimum merges them."""
    # The output table makes the noise of self-attention twenty times as large.
    weights = Weights(_SEED + 3, _NOISE)
    layers = [
        {name: weights.drawn(_WIDTH, _WIDTH) for name in ("query", "key", "value", "cross_query", "cross_key")}
        for _ in range(_LAYERS)
    ]
    # The first layer's look at the image brings its mean colour; the normalisation's deviation is taken out again.
    carried = np.zeros((_WIDTH, _WIDTH), np.float32)
    carried[:3, :3] = np.eye(3)
    for index, layer in enumerate(layers):
        layer["cross_value"] = weights.add(carried if index == 0 else np.zeros_like(carried))
    out = weights.add(_output_table(tokenizer))
    names = [f"{layer}.{part}.{kind}" for layer in range(_LAYERS) for part in _PARTS for kind in ("key", "value")]
    branches = {cached: _branch(weights, layers, out, cached=cached) for cached in (True, False)}
    nodes = Nodes(weights)
    outputs = ["logits", *(f"present.{name}" for name in names)]
    switch = helper.make_node(
        "If", ["use_cache_branch"], outputs, then_branch=branches[True], else_branch=branches[False]
    )
    nodes.nodes.append(switch)
    past = [tensor(f"past_key_values.{name}", FLOAT, *_cache_shape("past", name)) for name in names]
    inputs = [
        tensor("encoder_attention_mask", INT64, "B", "T"),
        tensor("encoder_hidden_states", FLOAT, "B", "T", _WIDTH),
        tensor("inputs_embeds", FLOAT, "B", "S", _WIDTH),
        *past,
        tensor("use_cache_branch", BOOL, 1),
    ]
    present = [tensor(f"present.{name}", FLOAT, *_cache_shape("present", name)) for name in names]
    save(path, nodes, inputs, [tensor("logits", FLOAT, "B", "S", tokenizer.get_vocab_size()), *present])


_PARTS = ("decoder", "encoder")


def _cache_shape(when: str, name: str) -> tuple[int | str, ...]:
    part = "encoder" if ".encoder." in name else "decoder"
    return (f"{when}_{part}_B", HEADS, f"{when}_{part}_S", _WIDTH // HEADS)


def _branch(weights: Weights, layers: list[dict[str, str]], out: str, *, cached: bool) -> onnx.GraphProto:
    """The decoder once; with the cache it continues it, and what it would give out for the encoder holds nothing."""
    nodes = Nodes(weights, "c" if cached else "f")
    value, present = "inputs_embeds", []
    mask = nodes.additive_mask("encoder_attention_mask")
    for index, layer in enumerate(layers):
        normed = nodes.normed(value, _WIDTH)
        query, key, held = (nodes.add("MatMul", normed, layer[name]) for name in ("query", "key", "value"))
        key, held = nodes.heads(key, _WIDTH), nodes.heads(held, _WIDTH)
        if cached:
            past = f"past_key_values.{index}.decoder."
            key = nodes.add("Concat", f"{past}key", key, axis=2)
            held = nodes.add("Concat", f"{past}value", held, axis=2)
        seen = nodes.attended(nodes.heads(query, _WIDTH), key, held, _WIDTH, _causal(nodes, key, normed))
        value = nodes.add("Add", value, seen)
        query = nodes.heads(nodes.add("MatMul", nodes.normed(value, _WIDTH), layer["cross_query"]), _WIDTH)
        if cached:
            cross = [f"past_key_values.{index}.encoder.{kind}" for kind in ("key", "value")]
            given = [weights.add(np.zeros((0, HEADS, 1, _WIDTH // HEADS), np.float32)) for _ in cross]
        else:
            cross = given = [
                nodes.heads(nodes.add("MatMul", "encoder_hidden_states", layer[f"cross_{kind}"]), _WIDTH)
                for kind in ("key", "value")
            ]
        value = nodes.add("Add", value, nodes.attended(query, *cross, _WIDTH, mask))
        present += [key, held, *given]
    logits = nodes.add("MatMul", value, out)
    outputs = []
    for place, name in enumerate([logits, *present]):
        nodes.named(name, f"{nodes.prefix}_out{place}")
        outputs.append(helper.make_empty_tensor_value_info(f"{nodes.prefix}_out{place}"))
    return helper.make_graph(nodes.nodes, "cached" if cached else "first", [], outputs)


def _causal(nodes: Nodes, key: str, queries: str) -> str:
    """[S,T], very negative where a token would see a later one."""
    total = nodes.add("Slice", nodes.add("Shape", key), nodes.ints(2), nodes.ints(3))
    new = nodes.add("Slice", nodes.add("Shape", queries), nodes.ints(1), nodes.ints(2))
    one, zero = nodes.weights.add(np.array(1, np.int64)), nodes.weights.add(np.array(0, np.int64))
    flat_total, flat_new = nodes.add("Squeeze", total), nodes.add("Squeeze", new)
    columns = nodes.add("Unsqueeze", nodes.add("Range", zero, flat_total, one), nodes.ints(0))
    rows = nodes.add("Range", nodes.add("Sub", flat_total, flat_new), flat_total, one)
    late = nodes.add("Greater", columns, nodes.add("Unsqueeze", rows, nodes.ints(1)))
    return nodes.add("Mul", nodes.add("Cast", late, to=FLOAT), nodes.number(-1e9))
