"""Makes of an image of a logo what it is recognised by in pictures."""

from __future__ import annotations

from typing import Any

from lensmesh_models.images import BadImage, decode_with_opacity
from lensmesh_models.logo_marks import mark_document
from lensmesh_models.logo_search import NoMark, uploaded
from lensmesh_models.serving import Model, Tensors, call, documents, values

_SIDE_PX = 512  # the longer side of what is looked at; a patch is 64


class TritonPythonModel(Model):
    """IMAGE BYTES [B,1] (PNG, with opacity or without, or JPEG) -> MARK BYTES [B,1]: JSON {vectors, views}.

    ``vectors`` is a list of unit vectors, one for each ground that the mark was seen on; the rest is for
    ``logo_verifier``. An image of one colour only is a bad image.
    """

    def answer(self, request: Any) -> Tensors:
        return {"MARK": documents(_mark(image) for image in values(request, "IMAGE"))}


def _mark(image: bytes) -> dict[str, Any]:
    try:
        return mark_document(uploaded(decode_with_opacity(image, side_px=_SIDE_PX), _embed))
    except NoMark as error:
        raise BadImage(str(error)) from error


def _embed(patches: Any) -> Any:
    return call("logo_encoder", {"PATCH": patches}, ["VECTOR"])["VECTOR"]
