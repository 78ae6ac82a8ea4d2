"""Text side of a joint image-text encoder: the text tower's embedding at unit length."""

from __future__ import annotations

from typing import Any

from lensmesh_models.sentences import unit
from lensmesh_models.serving import Model, Tensors, call, text_of, values
from lensmesh_models.tokens import encode, load_tokenizer


class TritonPythonModel(Model):
    """TEXT BYTES [B,1] (UTF-8, cut at the tower's length) -> VECTOR float32 [B,768] of length one."""

    def load(self) -> None:
        # The tower has no mask: it was trained on texts that all have the full length.
        self.tokenizer = load_tokenizer(self.folder, fill=True)

    def answer(self, request: Any) -> Tensors:
        tokens = encode(self.tokenizer, [text_of(value) for value in values(request, "TEXT")])
        outputs = call("text_tower", {"input_ids": tokens["input_ids"]}, ["embedding"])
        return {"VECTOR": unit(outputs["embedding"])}
