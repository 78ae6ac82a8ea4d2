"""YuNet's input and the decoding of its twelve outputs (Wu, Peng & Yu 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lensmesh_models.geometry import suppress
from lensmesh_models.images import Pixels

SIDE_PX = 640
OUTPUTS = tuple(f"{part}_{stride}" for part in ("cls", "obj", "bbox", "kps") for stride in (8, 16, 32))
FLOOR = 0.5
_OVERLAP_MAX = 0.3


def letterbox(pixels: Pixels) -> tuple[Pixels, float]:
    """uint8 [1,640,640,3] with the image in the top left corner, and how many of its pixels one of ours covers."""
    height, width = pixels.shape[:2]
    scale = max(height, width) / SIDE_PX
    size = max(1, round(width / scale)), max(1, round(height / scale))
    # Enlarging by AREA would be nearest neighbour.
    method = cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR
    canvas = np.zeros((1, SIDE_PX, SIDE_PX, 3), np.uint8)
    canvas[0, : size[1], : size[0]] = cv2.resize(pixels, size, interpolation=method)
    return canvas, scale


def decode_faces(outputs: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Scores [N], boxes [N,4] (left, top, right, bottom), landmarks [N,5,2], best first, in pixels of the input."""
    scores, boxes, points = [], [], []
    for stride in (8, 16, 32):
        score = np.sqrt(np.clip(outputs[f"cls_{stride}"], 0, 1) * np.clip(outputs[f"obj_{stride}"], 0, 1)).reshape(-1)
        keep = np.flatnonzero(score >= FLOOR)
        cell = np.stack([keep % (SIDE_PX // stride), keep // (SIDE_PX // stride)], axis=1)
        box = outputs[f"bbox_{stride}"].reshape(-1, 4)[keep]
        centre, size = (cell + box[:, :2]) * stride, np.exp(box[:, 2:]) * stride
        scores.append(score[keep])
        boxes.append(np.concatenate([centre - size / 2, centre + size / 2], axis=1))
        points.append((outputs[f"kps_{stride}"].reshape(-1, 5, 2)[keep] + cell[:, None]) * stride)
    all_scores, all_boxes, all_points = (np.concatenate(parts) for parts in (scores, boxes, points))
    kept = suppress(all_boxes, all_scores, overlap_max=_OVERLAP_MAX)
    return all_scores[kept], all_boxes[kept], all_points[kept]
