"""Captions an image by a generative vision-language model of the Florence-2 kind (Xiao et al. 2023).

The image's features and a question go through the encoder; the decoder writes the answer token by token. It runs in
this process: a beam's keys and values have 20 MB, too much to hand over at every token.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from lensmesh_models.captions import quoted
from lensmesh_models.decoder import Decoder, Decoding, Embedder
from lensmesh_models.generation import Rules, generate
from lensmesh_models.preparation import Preparation
from lensmesh_models.serving import Model, Tensors, call, documents, optional_values, text_of, values
from tokenizers import Tokenizer


class TritonPythonModel(Model):
    """IMAGE, optional TEXT BYTES [B,1] -> CAPTION BYTES [B,1]: JSON {text, model, log_probability, complete}."""

    def load(self) -> None:
        self.preparation = Preparation.read(self.folder / "preprocessor_config.json")
        self.tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        begin, end = (self._id(token) for token in ("<s>", "</s>"))
        # The decoder was taught to begin with the stop token, and then the first one.
        self.prefix = np.array([end, begin], np.int64)
        given = self.parameters
        self.rules = Rules(end, int(given["beams"]), int(given["tokens_max"]), int(given["repeat_tokens"]))
        self.embedder = Embedder(self.folder / "embedder.onnx")
        self.decoder = Decoder(self.folder / "decoder.onnx", self.embedder)
        question = np.array([self.tokenizer.encode(given["prompt"]).ids], np.int64)
        self.question = self.embedder(question)

    def answer(self, request: Any) -> Tensors:
        images = values(request, "IMAGE")
        texts = optional_values(request, "TEXT", len(images))
        pixels = np.stack([self.preparation.apply(data) for data in images])
        features = call("caption_vision", {"pixel_values": pixels}, ["image_features"])["image_features"]
        question = np.repeat(self.question, len(images), axis=0)
        seen = np.concatenate([features, question], axis=1)
        inputs = {"inputs_embeds": seen, "attention_mask": np.ones(seen.shape[:2], np.int64)}
        states = call("caption_encoder", inputs, ["last_hidden_state"])["last_hidden_state"]
        pairs = zip(states, texts, strict=True)
        return {"CAPTION": documents(self._caption(state[None], text_of(text)) for state, text in pairs)}

    def _caption(self, states: Any, text: str) -> dict[str, Any]:
        """One image's document. Raises ValueError where the model says nothing."""
        decoding = Decoding(self.decoder, states)
        found = generate(decoding.first(self.prefix), decoding, self.rules)
        sentence = self.tokenizer.decode(list(found.tokens), skip_special_tokens=True).strip()
        if not sentence:
            raise ValueError("the captioner ended without a word")
        return {
            "text": quoted(sentence, text),
            "model": self.parameters["version"],
            "log_probability": round(found.log_probability, 4),
            "complete": found.complete,
        }

    def _id(self, token: str) -> int:
        found = self.tokenizer.token_to_id(token)
        if found is None:
            raise ValueError(f"the tokenizer has no {token}")
        return int(found)
