"""YuNet's input and the decoding of its twelve outputs (Wu, Peng & Yu 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lensmesh_models.geometry import suppress
from lensmesh_models.images import Pixels

STRIDES_PX = (8, 16, 32)
OUTPUTS = tuple(f"{part}_{stride}" for part in ("cls", "obj", "bbox", "kps") for stride in STRIDES_PX)
FLOOR = 0.5
OVERLAP_MAX = 0.3
_STEP_PX = STRIDES_PX[-1]


@dataclass(frozen=True)
class Faces:
    """Best first: ``scores`` [N], ``boxes`` [N,4] (left, top, right, bottom), ``points`` [N,5,2], in pixels."""

    scores: NDArray[Any]
    boxes: NDArray[Any]
    points: NDArray[Any]

    def moved(self, scale: float, offset: tuple[int, int]) -> Faces:
        """The same faces in pixels of the picture that was shrunk by 1 / ``scale`` and cut at ``offset``."""
        boxes = self.boxes.reshape(-1, 2, 2) * scale + offset
        return Faces(self.scores, boxes.reshape(-1, 4), self.points * scale + offset)

    def of(self, kept: NDArray[Any]) -> Faces:
        """Those at the indices, or where the mask is true."""
        return Faces(self.scores[kept], self.boxes[kept], self.points[kept])


def network_input(pixels: Pixels, scale: float) -> tuple[Pixels, float]:
    """uint8 [1,H,W,3] with the pixels times ``scale`` in the top left corner, and how many of them one of ours covers.

    H and W are multiples of 32; what is left over is black.
    """
    height, width = pixels.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    high, wide = (-(-side // _STEP_PX) * _STEP_PX for side in (size[1], size[0]))
    # Enlarging by AREA would be nearest neighbour.
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    canvas = np.zeros((1, high, wide, 3), np.uint8)
    canvas[0, : size[1], : size[0]] = cv2.resize(pixels, size, interpolation=method)
    return canvas, 1 / scale


def decode_faces(outputs: Mapping[str, NDArray[Any]], width: int) -> Faces:
    """The faces, in pixels of the input, that the network found in an input of ``width`` pixels."""
    scores, boxes, points = [], [], []
    for stride in STRIDES_PX:
        score = np.sqrt(np.clip(outputs[f"cls_{stride}"], 0, 1) * np.clip(outputs[f"obj_{stride}"], 0, 1)).reshape(-1)
        keep = np.flatnonzero(score >= FLOOR)
        cell = np.stack([keep % (width // stride), keep // (width // stride)], axis=1)
        box = outputs[f"bbox_{stride}"].reshape(-1, 4)[keep]
        centre, size = (cell + box[:, :2]) * stride, np.exp(box[:, 2:]) * stride
        scores.append(score[keep])
        boxes.append(np.concatenate([centre - size / 2, centre + size / 2], axis=1))
        points.append((outputs[f"kps_{stride}"].reshape(-1, 5, 2)[keep] + cell[:, None]) * stride)
    return best(Faces(*(np.concatenate(parts) for parts in (scores, boxes, points))))


def together(parts: Sequence[Faces]) -> Faces:
    """The faces of several looks at one picture, each face once."""
    return best(
        Faces(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("scores", "boxes", "points")))
    )


def best(faces: Faces) -> Faces:
    """Best first, without those that overlap a better one."""
    return faces.of(np.array(suppress(faces.boxes, faces.scores, overlap_max=OVERLAP_MAX), np.intp))
