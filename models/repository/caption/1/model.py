"""Captions an image by a template over ``structure`` and ``faces``, and the text that the caller has read."""

from __future__ import annotations

from typing import Any

from lensmesh_models.captions import FACE_MIN, MODEL, compose
from lensmesh_models.serving import Model, Tensors, call, document, documents, optional_values, strings, text_of, values


class TritonPythonModel(Model):
    """IMAGE, optional TEXT BYTES [B,1] -> CAPTION BYTES [B,1]: JSON {text, model, objects, classes, faces}."""

    def answer(self, request: Any) -> Tensors:
        images = values(request, "IMAGE")
        texts = optional_values(request, "TEXT", len(images))
        return {"CAPTION": documents(_caption(*pair) for pair in zip(images, texts, strict=True))}


def _caption(image: bytes, text: bytes | None) -> dict[str, Any]:
    facts = document(call("structure", {"IMAGE": strings([image])}, ["FACTS"])["FACTS"])
    faces = document(call("faces", {"IMAGE": strings([image])}, ["FACES"])["FACES"])
    return {
        "text": compose(facts["objects"], facts["classes"], faces, text_of(text)),
        "model": MODEL,
        "objects": facts["objects"],
        "classes": facts["classes"],
        "faces": sum(face["confidence"] >= FACE_MIN for face in faces),
    }
