"""The 80 COCO classes and the last step of the object detector: threshold, suppression, plain records."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensmesh_models.geometry import suppress
from lensmesh_models.images import rounded

SIDE_PX = 300
FLOOR = 0.5
_OVERLAP_MAX = 0.5
_OBJECTS_MAX = 20

# COCO numbers its categories 1..90 with ten gaps, kept here as empty names.
_NAMES = [
    "person",
    "bicycle",
    "car",
    "motorcycle",
    "airplane",
    "bus",
    "train",
    "truck",
    "boat",
    "traffic light",
    "fire hydrant",
    "",
    "stop sign",
    "parking meter",
    "bench",
    "bird",
    "cat",
    "dog",
    "horse",
    "sheep",
    "cow",
    "elephant",
    "bear",
    "zebra",
    "giraffe",
    "",
    "backpack",
    "umbrella",
    "",
    "",
    "handbag",
    "tie",
    "suitcase",
    "frisbee",
    "skis",
    "snowboard",
    "sports ball",
    "kite",
    "baseball bat",
    "baseball glove",
    "skateboard",
    "surfboard",
    "tennis racket",
    "bottle",
    "",
    "wine glass",
    "cup",
    "fork",
    "knife",
    "spoon",
    "bowl",
    "banana",
    "apple",
    "sandwich",
    "orange",
    "broccoli",
    "carrot",
    "hot dog",
    "pizza",
    "donut",
    "cake",
    "chair",
    "couch",
    "potted plant",
    "bed",
    "",
    "dining table",
    "",
    "",
    "toilet",
    "",
    "tv",
    "laptop",
    "mouse",
    "remote",
    "keyboard",
    "cell phone",
    "microwave",
    "oven",
    "toaster",
    "sink",
    "refrigerator",
    "",
    "book",
    "clock",
    "vase",
    "scissors",
    "teddy bear",
    "hair drier",
    "toothbrush",
]
LABELS = tuple(name for name in _NAMES if name)


def records(
    boxes: NDArray[Any], confidence: NDArray[Any], category: NDArray[Any], width: int, height: int
) -> list[dict[str, Any]]:
    """Objects of one ``width`` x ``height`` image, best first: label, confidence 0..1, box [x,y,w,h] in pixels.

    ``boxes`` [A,4] as top, left, bottom, right in shares; ``confidence`` [A]; ``category`` [A] as COCO id - 1.
    """
    keep = np.flatnonzero(confidence >= FLOOR)
    confidence, category = confidence[keep], category[keep]
    corners = np.clip(boxes[keep][:, [1, 0, 3, 2]], 0, 1) * [width, height, width, height]
    found = []
    for each in np.unique(category):
        own = np.flatnonzero(category == each)
        found += [own[index] for index in suppress(corners[own], confidence[own], overlap_max=_OVERLAP_MAX)]
    found.sort(key=lambda index: -confidence[index])
    return [
        {
            "label": _NAMES[category[index]],
            "confidence": round(float(confidence[index]), 4),
            "box": rounded(np.concatenate([corners[index, :2], corners[index, 2:] - corners[index, :2]])),
        }
        for index in found[:_OBJECTS_MAX]
        if category[index] < len(_NAMES) and _NAMES[category[index]]
    ]
