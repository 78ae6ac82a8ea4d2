"""Text to unit vectors: tokens for the sentence encoder and the mean of what it answers (Reimers & Gurevych 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

TOKENS_MAX = 256
_BATCH_CHARACTERS_MAX = 20_000  # a longer text is cut before the tokenizer sees it: 256 tokens never need more


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in ``path``, truncating at the model's limit and padding a batch to its longest text."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(TOKENS_MAX)
    tokenizer.enable_padding()
    return tokenizer


def encoder_inputs(tokenizer: Tokenizer, texts: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """The encoder's three tensors, int64 [B,S]. An empty text is two special tokens."""
    encodings = tokenizer.encode_batch([text[:_BATCH_CHARACTERS_MAX] for text in texts])
    ids = np.array([encoding.ids for encoding in encodings], np.int64)
    mask = np.array([encoding.attention_mask for encoding in encodings], np.int64)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def pooled(states: NDArray[Any], mask: NDArray[Any]) -> NDArray[np.float32]:
    """Unit vectors float32 [B,D]: the mean of ``states`` [B,S,D] over the tokens of ``mask`` [B,S]."""
    weights = mask[..., None].astype(np.float32)
    return unit((states * weights).sum(axis=1) / weights.sum(axis=1))


def unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Each row at length one, float32; a row of zeros becomes the first axis, as there is no direction to keep."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    safe = np.where(lengths > 1e-9, vectors / np.maximum(lengths, 1e-9), np.eye(1, vectors.shape[-1])[0])
    return np.asarray(safe, np.float32)
