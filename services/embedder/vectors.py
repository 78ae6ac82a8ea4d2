"""Makes vectors of texts and images with the model of each index.

Where vectors are kept is not known here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from lensmesh.v1 import common_pb2, embedder_pb2, namespace_pb2
from numpy.typing import NDArray

from services.embedder import keywords
from services.mesh.errors import Conflict, InvalidArgument
from services.mesh.json_names import enum_names
from services.mesh.models import ModelSet, Role, TritonModels, bytes_tensor

IMAGE = common_pb2.VECTOR_INDEX_IMAGE
MULTIMODAL = common_pb2.VECTOR_INDEX_MULTIMODAL
TEXT = common_pb2.VECTOR_INDEX_TEXT
KEYWORD = common_pb2.VECTOR_INDEX_KEYWORD
FACE = common_pb2.VECTOR_INDEX_FACE

Index: TypeAlias = common_pb2.VectorIndex.ValueType

# A set without a model for faces leaves that role out.
ROLES = {IMAGE: "embed_image", MULTIMODAL: "embed_multimodal", TEXT: "embed_text", FACE: "embed_face"}


class Vectors:
    """The models of the four indexes.

    Args:
        model_set: the set in use.
        before: sets that indexes may still be searched by, because they were not embedded anew yet.
    """

    def __init__(self, models: TritonModels, model_set: ModelSet, before: Sequence[ModelSet] = ()) -> None:
        self._models = models
        self._faces = model_set.roles["faces"]
        self._newest = {index: model_set.roles[name] for index, name in ROLES.items() if name in model_set.roles}
        self._roles: dict[tuple[int, str], Role] = {}
        for known in (model_set, *before):
            for index, name in ROLES.items():
                if name in known.roles:
                    self._roles.setdefault((index, known.roles[name].version), known.roles[name])

    @property
    def indexes(self) -> tuple[Index, ...]:
        """The indexes that vectors can be made for."""
        return (*self._newest, KEYWORD)

    def serves(self, index: Index, version: str) -> bool:
        """Whether vectors of this version can be made."""
        return version == keywords.VERSION if index == KEYWORD else (index, version) in self._roles

    def dim(self, index: Index, version: str) -> int:
        """The dimensions of an index's vectors; 0: sparse ones. Raises Conflict."""
        return 0 if index == KEYWORD else self._role(index, version).dim

    def version(self, index: Index) -> str:
        """The version of the index's model in use. Raises Conflict where the model set has none."""
        if index == KEYWORD:
            return keywords.VERSION
        if index not in self._newest:
            raise Conflict(f"the model set in use has no model for the index {_name(index)!r}")
        return self._newest[index].version

    def model_names(self) -> list[str]:
        """Every model that is called."""
        return [name for role in (*self._roles.values(), self._faces) for name in role.models]

    async def of_text(
        self, index: Index, text: str, version: str, *, query: bool = False
    ) -> embedder_pb2.EmbeddedVector:
        """The vector of a text: float32 of unit length, or sparse for the keyword index.

        Raises:
            InvalidArgument: the index takes no texts.
            Conflict: no model of this version is served.
            LensmeshError: as `TritonModels.infer`.
        """
        if index == KEYWORD:
            self._check_keywords(version)
            vector = keywords.encode_query(text) if query else keywords.encode_document(text)
            return _embedded(index, version, vector)
        if index in (IMAGE, FACE):
            raise InvalidArgument.field("vector_index", "this index takes images, not texts", "index.input")
        role = self._role(index, version)
        answer = await self._models.infer(
            role.text_model or role.model, {"TEXT": bytes_tensor(text.encode())}, ["VECTOR"]
        )
        return _embedded(index, version, _dense(answer["VECTOR"]))

    async def of_image(self, index: Index, image: bytes, version: str, text: str = "") -> embedder_pb2.EmbeddedVector:
        """The vector of an image, float32 of unit length; in the index face, that of its largest face.

        Args:
            image: a JPEG or PNG, upright.
            text: what was read on it; multimodal models may use it.

        Raises:
            InvalidArgument: the index takes no images, or no face was found.
            Conflict: no model of this version is served.
            LensmeshError: as `TritonModels.infer`.
        """
        if index in (TEXT, KEYWORD):
            raise InvalidArgument.field("vector_index", "this index takes texts, not images", "index.input")
        if index == FACE:
            return await self.of_face(image, await self._largest_face(image), version)
        role = self._role(index, version)
        inputs = {"IMAGE": bytes_tensor(image)}
        if text and index == MULTIMODAL and "ocr" in role.uses:
            inputs["TEXT"] = bytes_tensor(text.encode())
        answer = await self._models.infer(role.image_model or role.model, inputs, ["VECTOR"])
        return _embedded(index, version, _dense(answer["VECTOR"]))

    async def of_face(self, image: bytes, landmarks: Sequence[float], version: str) -> embedder_pb2.EmbeddedVector:
        """The vector of a face on an image, float32 of unit length.

        Args:
            landmarks: x, y of right eye, left eye, nose, right and left mouth corner, in pixels.

        Raises:
            Conflict: no model of this version is served.
            LensmeshError: as `TritonModels.infer`.
        """
        points = json.dumps([list(landmarks[at : at + 2]) for at in range(0, len(landmarks), 2)]).encode()
        inputs = {"IMAGE": bytes_tensor(image), "LANDMARKS": bytes_tensor(points)}
        answer = await self._models.infer(self._role(FACE, version).model, inputs, ["VECTOR"])
        return _embedded(FACE, version, _dense(answer["VECTOR"]))

    async def _largest_face(self, image: bytes) -> list[float]:
        answer = await self._models.infer(self._faces.model, {"IMAGE": bytes_tensor(image)}, ["FACES"])
        found = json.loads(answer["FACES"].reshape(-1)[0])
        faces = [each for each in found if each["confidence"] >= self._faces.threshold]
        if not faces:
            raise InvalidArgument.field("value", "no face was found on this image", "index.face")
        largest = max(faces, key=lambda each: each["box"][2] * each["box"][3])
        return [value for point in largest["landmarks"] for value in point]

    def given(self, index: Index, vector: common_pb2.Vector, version: str) -> embedder_pb2.EmbeddedVector:
        """A caller's own dense vector, scaled to unit length.

        Raises:
            InvalidArgument: the index is sparse, or the vector is zero or has the wrong dimensions.
        """
        if index == KEYWORD:
            raise InvalidArgument.field("vector", "the keyword index takes texts, not vectors", "index.input")
        values = dense_array(vector)
        dim, length = self.dim(index, version), float(np.linalg.norm(values))
        if len(values) != dim:
            raise InvalidArgument.field("vector", f"has {len(values)} dimensions; the index has {dim}", "vector.dim")
        if not np.isfinite(length) or length == 0:
            raise InvalidArgument.field("vector", "must be finite and not all zeros", "vector.length")
        return _embedded(index, version, _dense(values / length))

    def kind(self, index: Index, version: str) -> namespace_pb2.VectorIndexKind:
        """What the index holds when its vectors are of this version; without its size where that is not known."""
        modalities = {IMAGE: ["image"], FACE: ["image"], MULTIMODAL: ["image", "text"]}.get(index, ["text"])
        kind = namespace_pb2.VectorIndexKind(
            supported_modalities=modalities, vector_type="dense", model_version=version
        )
        if index == KEYWORD:
            kind.vector_type = "sparse"
        elif self.serves(index, version):
            kind.size = self.dim(index, version)
        return kind

    def _role(self, index: Index, version: str) -> Role:
        if (index, version) not in self._roles:
            raise _not_served(index, version)
        return self._roles[(index, version)]

    def _check_keywords(self, version: str) -> None:
        if version != keywords.VERSION:
            raise _not_served(KEYWORD, version)


def _not_served(index: Index, version: str) -> Conflict:
    return Conflict(
        f"the index {_name(index)!r} of this namespace holds vectors of {version!r}, a model that is not served any"
        " more: embed the namespace anew, or name the old model set in LENSMESH_MODEL_SETS_BEFORE"
    )


def _name(index: Index) -> str:
    return enum_names(common_pb2.VectorIndex.DESCRIPTOR)[index]


def _embedded(index: Index, version: str, vector: common_pb2.Vector) -> embedder_pb2.EmbeddedVector:
    return embedder_pb2.EmbeddedVector(vector_index=index, model_version=version, vector=vector)


def _dense(tensor: NDArray[np.float32]) -> common_pb2.Vector:
    return common_pb2.Vector(dense=np.ascontiguousarray(tensor.reshape(-1), dtype="<f4").tobytes())


def dense_array(vector: common_pb2.Vector) -> NDArray[np.float32]:
    """A dense vector's values, float32[D]."""
    return np.frombuffer(vector.dense, dtype="<f4")
