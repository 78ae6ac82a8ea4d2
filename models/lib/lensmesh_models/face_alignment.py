"""Turns a face upright and to one size by its five landmarks, as networks that compare faces want it.

The template is that of ArcFace (Deng et al., CVPR 2019), which SFace (Zhong et al. 2021) was trained with; the
transform is the similarity that is nearest to it by least squares (Umeyama, PAMI 1991, without reflection).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE_PX = 112
# Right eye, left eye, nose, right and left mouth corner of the person, in pixels of the upright face.
_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)


def aligned(pixels: NDArray[np.uint8], landmarks: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The face, uint8 [112,112,3], of an image uint8 [h,w,3]; ``landmarks`` [5,2] in its pixels. Black outside it."""
    face = cv2.warpAffine(pixels, similarity(landmarks), (SIDE_PX, SIDE_PX), flags=cv2.INTER_LINEAR)
    return np.asarray(face, dtype=np.uint8)


def similarity(landmarks: NDArray[np.float64]) -> NDArray[np.float64]:
    """The 2 x 3 matrix that brings the landmarks nearest to the template: [[a, -b, x], [b, a, y]]."""
    ones, zeros = np.ones(len(landmarks)), np.zeros(len(landmarks))
    across, down = landmarks.T
    equations = np.concatenate(
        [np.stack([across, -down, ones, zeros], axis=1), np.stack([down, across, zeros, ones], axis=1)]
    )
    (a, b, x, y), *_ = np.linalg.lstsq(equations, _TEMPLATE.T.reshape(-1), rcond=None)
    return np.array([[a, -b, x], [b, a, y]])
