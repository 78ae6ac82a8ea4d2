"""From upright crops to the text reader's input, and from its best characters to strings (CTC, Graves et al. 2006)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lensmesh_models.images import Pixels

_HEIGHT_PX = 48
_WIDTH_MIN_PX, _WIDTH_MAX_PX, _WIDTH_STEP_PX = 160, 3200, 32
_BATCH_MAX = 6
_GREY = 127  # what the network sees as zero, its padding in training
_BLANK = 0


def reader_batches(crops: Sequence[Pixels]) -> Iterator[tuple[list[int], Pixels]]:
    """Groups crops of like width: their indices and one uint8 [N,48,W,3], padded on the right."""
    lines = [_line(crop) for crop in crops]
    order = sorted(range(len(lines)), key=lambda index: lines[index].shape[1])
    for start in range(0, len(order), _BATCH_MAX):
        indices = order[start : start + _BATCH_MAX]
        widest = max(_WIDTH_MIN_PX, *(lines[index].shape[1] for index in indices))
        width = -(-widest // _WIDTH_STEP_PX) * _WIDTH_STEP_PX
        batch = np.full((len(indices), _HEIGHT_PX, width, 3), _GREY, np.uint8)
        for row, index in enumerate(indices):
            batch[row, :, : lines[index].shape[1]] = lines[index]
        yield indices, batch


def _line(crop: Pixels) -> Pixels:
    height, width = crop.shape[:2]
    wanted = min(_WIDTH_MAX_PX, max(1, int(np.ceil(_HEIGHT_PX * width / height))))
    return np.asarray(cv2.resize(crop, (wanted, _HEIGHT_PX)), np.uint8)


def collapse(index: NDArray[Any], probability: NDArray[Any], alphabet: Sequence[str]) -> tuple[str, float]:
    """Text and mean confidence of one line from the best character [T] and its probability [T] a step."""
    fresh = np.concatenate([[True], index[1:] != index[:-1]]) & (index != _BLANK)
    if not fresh.any():
        return "", 0.0
    return "".join(alphabet[step] for step in index[fresh]), float(probability[fresh].mean())
