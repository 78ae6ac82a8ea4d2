"""Asks the models of the role logos: for the mark of an uploaded logo, and for the marks that a picture shows.

Which marks there are, `logos` knows; which are near and which findings stand, `gallery`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.mesh.errors import BrokenImage, Unimplemented
from services.mesh.models import ModelSet, TritonModels, bytes_tensor
from services.vision.acquire import NormalisedImage
from services.vision.gallery import Finding, Vectors, merged

# PNG (third edition), 11.2.1: where IHDR has the bits of a sample and the colour type, and types with an alpha channel.
_PNG_BITS, _PNG_COLOUR = 24, 25
_PNG_WITH_ALPHA = (4, 6)


@dataclass(frozen=True, slots=True)
class KnownMark:
    """A mark of a namespace: whose it is, the brand, and its document MARK, a JSON object without a name."""

    logo_id: str
    name: str
    document: bytes


class Marks:
    """The models that make marks and compare them."""

    def __init__(self, models: TritonModels, model_set: ModelSet) -> None:
        self._models = models
        self._set_name = model_set.name
        self._role = model_set.roles["logos"]

    @property
    def version(self) -> str:
        """The version of the role: marks of another one are not to be compared."""
        return self._role.version

    @property
    def offered(self) -> bool:
        """Whether the model set can make and compare marks."""
        return bool(self._role.mark_model and self._role.verifier_model)

    async def make(self, image: bytes) -> tuple[bytes, Vectors]:
        """The document MARK of an image, and the vectors float32 [V,D] in it.

        Raises:
            Unimplemented: the model set has no model for it.
            BrokenImage: the image shows no mark.
            ModelFailed, Unavailable: as `TritonModels.infer`.
        """
        if not self.offered:
            raise Unimplemented(f"the model set {self._set_name!r} has no model for logos of one's own")
        try:
            answer = await self._models.infer(self._role.mark_model, {"IMAGE": bytes_tensor(image)}, ["MARK"])
        except BrokenImage:
            # It was decoded before it came here.
            raise BrokenImage("the image shows no mark: it has one colour only, or nothing but its ground") from None
        document = bytes(answer["MARK"].reshape(-1)[0])
        return document, np.asarray(json.loads(document)["vectors"], np.float32)

    async def find(
        self, inputs: Mapping[str, NDArray[Any]], near: Callable[[Vectors], Sequence[KnownMark]]
    ) -> list[Finding]:
        """The logos on a picture: those that ship and a namespace's own.

        Args:
            inputs: IMAGE, and LINES where they were read.
            near: the marks that are near to the regions float32 [R,D] of the picture.

        Raises:
            BrokenImage, ModelFailed, Unavailable: as `TritonModels.infer`.
        """
        answer = await self._models.infer(self._role.model, inputs, ["LOGOS", "REGIONS"])
        shipped = [Finding(each["name"], each["confidence"], each["quad"]) for each in _parsed(answer["LOGOS"])]
        regions = _parsed(answer["REGIONS"])
        known = near(np.array([each["vector"] for each in regions], np.float32)) if regions else ()
        if not known:
            return shipped
        given = {"REGIONS": answer["REGIONS"].reshape(1, 1), "MARKS": bytes_tensor(_listed(known))}
        verified = await self._models.infer(self._role.verifier_model, given, ["LOGOS"])
        names = {each.logo_id: each.name for each in known}
        own = [
            Finding(names[each["name"]], each["confidence"], each["quad"], logo_id=each["name"])
            for each in _parsed(verified["LOGOS"])
        ]
        return merged(own, shipped)


def markable(content: bytes, image: NormalisedImage) -> bytes:
    """The image that a mark is made of: the file itself if it is a transparent PNG, else the normalised image.

    The normalised image stands on white, on which a white mark is lost; the model tries several grounds.

    Args:
        content: the file that `image` was made of, so that it is known to decode within the limits.
    """
    if image.format != "PNG" or image.frames > 1 or content[_PNG_BITS] > 8 or b"eXIf" in content:
        return image.content
    transparent = content[_PNG_COLOUR] in _PNG_WITH_ALPHA or b"tRNS" in content[: content.find(b"IDAT")]
    return content if transparent else image.content


def _listed(marks: Sequence[KnownMark]) -> bytes:
    """MARKS as JSON. The id stands for the name, as several marks may have one."""
    # Put together as text: to parse and write documents again would take longer than to find them.
    named = (b'{"name": "%s", %s' % (each.logo_id.encode(), each.document.lstrip()[1:]) for each in marks)
    return b"[%s]" % b", ".join(named)


def _parsed(tensor: NDArray[Any]) -> Any:
    return json.loads(tensor.reshape(-1)[0])
