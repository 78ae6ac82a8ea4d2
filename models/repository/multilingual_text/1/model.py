"""Text embedding in about a hundred languages: tokens to ``multilingual_encoder``, its states averaged, unit length."""

from __future__ import annotations

from typing import Any

from lensmesh_models.sentences import pooled
from lensmesh_models.serving import Model, Tensors, call, text_of, values
from lensmesh_models.tokens import encode, load_tokenizer


class TritonPythonModel(Model):
    """TEXT BYTES [B,1] (UTF-8, cut after 512 tokens) -> VECTOR float32 [B,768] of length one."""

    def load(self) -> None:
        self.prefix = self.parameters["prefix"]
        self.tokenizer = load_tokenizer(self.folder, fill=False)

    def answer(self, request: Any) -> Tensors:
        tokens = encode(self.tokenizer, [self.prefix + text_of(value) for value in values(request, "TEXT")])
        states = call("multilingual_encoder", tokens, ["last_hidden_state"])["last_hidden_state"]
        return {"VECTOR": pooled(states, tokens["attention_mask"])}
