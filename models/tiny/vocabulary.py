"""The few words that the tiny networks know, and their tokenizers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

# A colour's red, green and blue, each -1 or 1: what a picture of it looks like after normalisation by 0.5.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (1, -1, -1),
    "green": (-1, 1, -1),
    "blue": (-1, -1, 1),
    "yellow": (1, 1, -1),
}
# Words that mean the same in several languages.
CONCEPTS = (("cat", "Katze", "chat", "gato"), ("house", "Haus", "maison", "casa"), ("bread", "Brot", "pain", "pan"))
CAPTION_WORDS = (*COLOURS, "very", "dark", "bright", "white", "picture")
QUESTION = "What does the image describe?"


def colour_vector(word: str, width: int) -> NDArray[np.float32]:
    """The colour in the first three places, nothing elsewhere; other words are nothing everywhere."""
    vector = np.zeros(width, np.float32)
    vector[:3] = COLOURS.get(word, (0, 0, 0))
    return vector


def words(folder: Path, known: list[str], *, length: int, pad: str) -> Tokenizer:
    """A tokenizer of whole words in lower case, ``</s>`` at the end; written with its configuration."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer.train_from_iterator(known, trainers.WordLevelTrainer(special_tokens=special, show_progress=False))
    end = tokenizer.token_to_id("</s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", end)])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"model_max_length": length, "pad_token": pad}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return tokenizer


def bytes_and_words(folder: Path) -> Tokenizer:
    """A byte-level BPE tokenizer as the captioner's (Radford et al. 2019), in which each caption word is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([QUESTION, *(f"a {word}" for word in CAPTION_WORDS)], trainer)
    begin, end = (tokenizer.token_to_id(token) for token in ("<s>", "</s>"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", begin), ("</s>", end)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer
