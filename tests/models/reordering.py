"""Runs the decoder of the captioner with hypotheses that change places, in Triton's environment.

Arguments: the hub's folder of the captioner, models/lib. Prints two numbers: by how much the next tokens' logits differ
between hypotheses that changed places and the same ones that never did, and between one hypothesis and the other.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

folder, library = Path(sys.argv[1]), sys.argv[2]
sys.path.insert(0, library)

from lensmesh_models.decoder import Decoder, Decoding, Embedder  # noqa: E402

decoder = Decoder(folder / "onnx" / "decoder_model_merged.onnx", Embedder(folder / "onnx" / "embed_tokens.onnx"))
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
white, red, picture = (tokenizer.token_to_id(f"Ġ{word}") for word in ("white", "red", "picture"))
states = np.random.default_rng(1).normal(size=(1, 9, 32)).astype(np.float32)


def after(words: list[int], parents: list[int]) -> np.ndarray:
    """What may come after two hypotheses of one word each, and "picture"."""
    decoding = Decoding(decoder, states)
    decoding.first(np.array([tokenizer.token_to_id("</s>"), tokenizer.token_to_id("<s>")]))
    decoding(np.array(words), np.array([0, 0]))
    return decoding(np.array([picture, picture]), np.array(parents))


changed, kept = after([white, red], [1, 0]), after([red, white], [0, 1])
print(np.abs(changed - kept).max(), np.abs(kept[0] - kept[1]).max())
