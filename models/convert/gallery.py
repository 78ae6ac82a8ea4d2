"""Builds the gallery of marks that ships: icons of a collection, drawn, embedded and kept with what verifying needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from lensmesh_models.logo_search import NoMark, drawn
from numpy.typing import NDArray

from models.convert.icons import STRANGERS, bucket, collected, mask, tight

_SIDE = 96  # pixels of a drawn mark; patches are smaller
_GROUND, _INK = 60, 200
_BATCH = 64


def on_ground(drawing: NDArray[np.uint8], ground: int = _GROUND, ink: int = _INK) -> NDArray[np.uint8]:
    """A mask as one grey on another, RGB."""
    share = drawing[..., None].astype(np.float32) / 255
    return np.repeat(ground + (ink - ground) * share, 3, axis=2).astype(np.uint8)


def build(icons: Path, encoder: Path, target: Path) -> None:
    """Writes names [N], vectors float32 [N,128], patches uint8 [N,64,64] and boxes float32 [N,4] as an .npz."""
    session = onnxruntime.InferenceSession(str(encoder), providers=["CPUExecutionProvider"])

    def embed(patches: NDArray[np.uint8]) -> Any:
        return session.run(["VECTOR"], {"PATCH": patches})[0]

    icons_known = [icon for icon in collected(icons.read_text(encoding="utf-8")) if bucket(icon.name) >= STRANGERS]
    save([(icon.name, mask(icon.path, _SIDE)) for icon in icons_known], embed, target)


def save(marks: list[tuple[str, NDArray[np.uint8]]], embed: Callable[[NDArray[np.uint8]], Any], target: Path) -> None:
    """Keeps the marks (name and mask) as a gallery."""
    names, patches, boxes = [], [], []
    for name, drawing in marks:
        try:
            patch, box = drawn(on_ground(tight(drawing)), np.full(3, _GROUND))
        except NoMark:  # a full square has no shape of its own
            continue
        names.append(name)
        patches.append(patch)
        boxes.append(box)
    vectors = np.concatenate([embed(np.stack(patches[at : at + _BATCH])) for at in range(0, len(patches), _BATCH)])
    arrays = {"names": np.array(names), "vectors": vectors, "patches": np.stack(patches), "boxes": np.array(boxes)}
    with target.open("wb") as file:
        np.savez_compressed(file, **arrays)
