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

_TOP = 50  # classes that count; with more, what is surely not there adds up
_OBJECT_WEIGHT = 0.15  # of each object found: most photos show a person, and most queries are about more than that
_TEXT_WEIGHT, _TEXT_LETTERS = 0.6, 30  # of the read text, in full from so many letters: a few are often misread
_QUERY_CENTRED = 0.5  # share of the centre that a query loses: a sentence has less of it than a label's prompt


def prompts(class_names: Sequence[str]) -> list[str]:
    """The sentences whose vectors are the rows of the label matrix: the classes, then the COCO objects."""
    return [f"a photo of a {label}" for label in (*class_names, *LABELS)]


def image_vector(
    probabilities: NDArray[Any],
    objects: Sequence[dict[str, Any]],
    read: tuple[str, NDArray[Any]] | None,
    labels: NDArray[Any],
    centre: NDArray[Any],
) -> NDArray[np.float32]:
    """Unit vector float32 [D] of class ``probabilities`` [C], object records, and the read text with its vector [D].

    ``labels`` [C + 80, D] are unit vectors of the prompts, ``centre`` [D] their mean.
    """
    count = len(probabilities)
    top = np.argsort(-probabilities, kind="stable")[:_TOP]
    weights = np.sqrt(probabilities[top])
    total = (weights / weights.sum()) @ unit(labels[top] - centre)
    for label in {item["label"] for item in objects}:
        total = total + _OBJECT_WEIGHT * unit(labels[count + LABELS.index(label)] - centre)
    if read is not None:
        text, vector = read
        share = min(1.0, sum(map(str.isalnum, text)) / _TEXT_LETTERS)
        total = total + _TEXT_WEIGHT * share * unit(vector - centre)
    return unit(total)


def query_vectors(vectors: NDArray[Any], centre: NDArray[Any]) -> NDArray[np.float32]:
    """Unit vectors float32 [B,D] of queries in the images' space, from the text encoder's [B,D]."""
    return unit(vectors - _QUERY_CENTRED * centre)
