"""Texts to token ids by an export's own tokenizer.json and tokenizer_config.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

# Tokens of one text whatever the export says: some write 10^30 for "no limit".
TOKENS_MAX = 512
# Characters that the tokenizer sees of one text: TOKENS_MAX tokens never need more.
_CHARACTERS_MAX = 20_000


def load_tokenizer(folder: Path, *, fill: bool) -> Tokenizer:
    """The tokenizer of ``folder``, cutting at the model's limit and padding with the model's own token.

    With ``fill`` every text gets the full length, as models without an attention mask were trained; else the
    longest of a batch decides. Raises ValueError where the padding token is not in the vocabulary.
    """
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    length = min(int(config["model_max_length"]), TOKENS_MAX)
    token = config["pad_token"]
    # Older exports write the token itself, newer ones its description.
    token = token["content"] if isinstance(token, dict) else token
    pad_id = tokenizer.token_to_id(token)
    if pad_id is None:
        raise ValueError(f"{folder}: the padding token {token!r} is not in the vocabulary")
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(pad_id=pad_id, pad_token=token, length=length if fill else None)
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """``input_ids`` and ``attention_mask``, int64 [B,S] each."""
    encodings = tokenizer.encode_batch([text[:_CHARACTERS_MAX] for text in texts])
    return {
        "input_ids": np.array([encoding.ids for encoding in encodings], np.int64),
        "attention_mask": np.array([encoding.attention_mask for encoding in encodings], np.int64),
    }
