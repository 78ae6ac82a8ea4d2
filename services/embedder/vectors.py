"""Makes vectors of texts and images with the model of each index.

Where vectors are kept is not known here.
"""

from __future__ import annotations

import numpy as np
from lensmesh.v1 import common_pb2, embedder_pb2, namespace_pb2
from numpy.typing import NDArray

from services.embedder import keywords
from services.mesh.errors import InvalidArgument
from services.mesh.json_names import enum_names
from services.mesh.models import ModelSet, Role, TritonModels, bytes_tensor

IMAGE = common_pb2.VECTOR_INDEX_IMAGE
MULTIMODAL = common_pb2.VECTOR_INDEX_MULTIMODAL
TEXT = common_pb2.VECTOR_INDEX_TEXT
KEYWORD = common_pb2.VECTOR_INDEX_KEYWORD

ROLES = {IMAGE: "embed_image", MULTIMODAL: "embed_multimodal", TEXT: "embed_text"}


class Vectors:
    """The models of the four indexes."""

    def __init__(self, models: TritonModels, model_set: ModelSet) -> None:
        self._models = models
        self._set = model_set

    def role(self, index: common_pb2.VectorIndex.ValueType) -> Role:
        """The role that serves a dense index."""
        return self._set.roles[ROLES[index]]

    def version(self, index: common_pb2.VectorIndex.ValueType) -> str:
        """The version of the index's model."""
        return keywords.VERSION if index == KEYWORD else self.role(index).version

    def kinds(self) -> dict[str, namespace_pb2.VectorIndexKind]:
        """What each index holds, by its name in JSON."""
        names = enum_names(common_pb2.VectorIndex.DESCRIPTOR)
        return {names[index]: self._kind(index) for index in (*ROLES, KEYWORD)}

    def model_names(self) -> list[str]:
        """Every model that is called."""
        return [name for index in ROLES for name in self.role(index).models]

    async def of_text(
        self, index: common_pb2.VectorIndex.ValueType, text: str, *, query: bool = False
    ) -> embedder_pb2.EmbeddedVector:
        """The vector of a text: float32 of unit length, or sparse for the keyword index.

        Raises:
            InvalidArgument: the index takes no texts.
            LensmeshError: as `TritonModels.infer`.
        """
        if index == KEYWORD:
            vector = keywords.encode_query(text) if query else keywords.encode_document(text)
            return self._embedded(index, vector)
        if index == IMAGE:
            raise InvalidArgument.field("vector_index", "the image index takes images, not texts", "index.input")
        role = self.role(index)
        answer = await self._models.infer(
            role.text_model or role.model, {"TEXT": bytes_tensor(text.encode())}, ["VECTOR"]
        )
        return self._embedded(index, _dense(answer["VECTOR"]))

    async def of_image(
        self, index: common_pb2.VectorIndex.ValueType, image: bytes, text: str = ""
    ) -> embedder_pb2.EmbeddedVector:
        """The vector of an image, float32 of unit length.

        Args:
            image: a JPEG or PNG, upright.
            text: what was read on it; multimodal models may use it.

        Raises:
            InvalidArgument: the index takes no images.
            LensmeshError: as `TritonModels.infer`.
        """
        if index in (TEXT, KEYWORD):
            raise InvalidArgument.field("vector_index", "this index takes texts, not images", "index.input")
        role = self.role(index)
        inputs = {"IMAGE": bytes_tensor(image)}
        if text and index == MULTIMODAL and "ocr" in role.uses:
            inputs["TEXT"] = bytes_tensor(text.encode())
        answer = await self._models.infer(role.image_model or role.model, inputs, ["VECTOR"])
        return self._embedded(index, _dense(answer["VECTOR"]))

    def given(self, index: common_pb2.VectorIndex.ValueType, vector: common_pb2.Vector) -> embedder_pb2.EmbeddedVector:
        """A caller's own dense vector, scaled to unit length.

        Raises:
            InvalidArgument: the index is sparse, or the vector is zero or has the wrong dimensions.
        """
        if index == KEYWORD:
            raise InvalidArgument.field("vector", "the keyword index takes texts, not vectors", "index.input")
        values = dense_array(vector)
        dim, length = self.role(index).dim, float(np.linalg.norm(values))
        if len(values) != dim:
            raise InvalidArgument.field("vector", f"has {len(values)} dimensions; the index has {dim}", "vector.dim")
        if not np.isfinite(length) or length == 0:
            raise InvalidArgument.field("vector", "must be finite and not all zeros", "vector.length")
        return self._embedded(index, _dense(values / length))

    def _kind(self, index: common_pb2.VectorIndex.ValueType) -> namespace_pb2.VectorIndexKind:
        modalities = {IMAGE: ["image"], MULTIMODAL: ["image", "text"]}.get(index, ["text"])
        kind = namespace_pb2.VectorIndexKind(
            supported_modalities=modalities, vector_type="dense", model_version=self.version(index)
        )
        if index == KEYWORD:
            kind.vector_type = "sparse"
        else:
            kind.size = self.role(index).dim
        return kind

    def _embedded(
        self, index: common_pb2.VectorIndex.ValueType, vector: common_pb2.Vector
    ) -> embedder_pb2.EmbeddedVector:
        return embedder_pb2.EmbeddedVector(vector_index=index, model_version=self.version(index), vector=vector)


def _dense(tensor: NDArray[np.float32]) -> common_pb2.Vector:
    return common_pb2.Vector(dense=np.ascontiguousarray(tensor.reshape(-1), dtype="<f4").tobytes())


def dense_array(vector: common_pb2.Vector) -> NDArray[np.float32]:
    """A dense vector's values, float32[D]."""
    return np.frombuffer(vector.dense, dtype="<f4")
