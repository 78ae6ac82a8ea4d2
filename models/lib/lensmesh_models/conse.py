"""Places an image in the space of a text encoder through the labels seen in it (ConSE, Norouzi et al. 2013).

Not a joint image-text encoder: blind to whatever its labels do not name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensmesh_models.objects import LABELS
from lensmesh_models.sentences import unit

_TOP = 20
_OBJECT_WEIGHT, _TEXT_WEIGHT = 0.5, 0.6


def prompts(class_names: Sequence[str]) -> list[str]:
    """The sentences whose vectors are the rows of the label matrix: the classes, then the COCO objects."""
    return [f"a photo of a {label}" for label in (*class_names, *LABELS)]


def image_vector(
    probabilities: NDArray[Any],
    objects: Sequence[dict[str, Any]],
    text_vector: NDArray[Any] | None,
    labels: NDArray[Any],
    centre: NDArray[Any],
) -> NDArray[np.float32]:
    """Unit vector float32 [D] of class ``probabilities`` [C], object records and the read text's vector [D].

    ``labels`` [C + 80, D] are unit vectors of the prompts, ``centre`` [D] their mean.
    """
    count = len(probabilities)
    top = np.argsort(-probabilities, kind="stable")[:_TOP]
    weights = np.sqrt(probabilities[top])
    total = (weights / weights.sum()) @ unit(labels[top] - centre)
    for label in {item["label"] for item in objects}:
        total = total + _OBJECT_WEIGHT * unit(labels[count + LABELS.index(label)] - centre)
    if text_vector is not None:
        total = total + _TEXT_WEIGHT * unit(text_vector - centre)
    return unit(total)
