"""Text embedding: tokens to ``sentence_encoder``, its states averaged, at unit length."""

from __future__ import annotations

from typing import Any

from lensmesh_models.sentences import encoder_inputs, load_tokenizer, pooled
from lensmesh_models.serving import Model, Tensors, call, text_of, values


class TritonPythonModel(Model):
    """TEXT BYTES [B,1] (UTF-8, cut after 256 tokens) -> VECTOR float32 [B,384] of length one."""

    def load(self) -> None:
        self.tokenizer = load_tokenizer(self.folder / "tokenizer.json")

    def answer(self, request: Any) -> Tensors:
        inputs = encoder_inputs(self.tokenizer, [text_of(value) for value in values(request, "TEXT")])
        states = call("sentence_encoder", inputs, ["last_hidden_state"])["last_hidden_state"]
        return {"VECTOR": pooled(states, inputs["attention_mask"])}
