"""Search: photos found by words, and a photo found by an edited copy of itself, both as the mesh would search.

Words: recall@k of each caption's photo among all photos, by the multimodal index, beside chance, beside the plain way,
which compares the query with a sentence about the photo, and beside ConSE as published (Norouzi et al. 2013).
Copies: how often the photo is the nearest one.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from bench.vision.engines import ROOT, Ours
from bench.vision.samples import PhotoSample

MODELS = ("embed_multimodal_image", "embed_multimodal_text", "embed_image", "embed_text", "caption", "ocr")
_LABELS = ROOT / "models" / "repository" / "embed_multimodal_image" / "1" / "labels.npy"
_CONSE_TOP = 10  # classes, the best of the paper's
_RANKS = (1, 5, 10)
_JPEG_QUALITY = 90
_LOW_QUALITY = 30
_CUT = 0.1  # of each side, by the edit `crop`
_TINT = (1.25, 1.0, 0.75)  # red, green, blue


def measure(ours: Ours, samples: Sequence[PhotoSample]) -> dict[str, Any]:
    """The keys of this role."""
    photos = [Image.open(sample.path).convert("RGB") for sample in samples]
    files = [_encoded(photo) for photo in photos]
    words = _by_words(ours, samples, files)
    copies = _by_copies(ours, photos, files)
    return {
        "text_to_image_recall_at_5": words["multimodal"]["recall_at_5"],
        "near_duplicate_rank1": copies["overall"],
        "retrieval": {"photos": len(samples), "words": words, "copies_rank1": copies},
    }


def _by_words(ours: Ours, samples: Sequence[PhotoSample], files: Sequence[bytes]) -> dict[str, Any]:
    queries = [(caption, place) for place, sample in enumerate(samples) for caption in sample.captions]
    if not queries:
        return {"multimodal": {"recall_at_5": None}}
    owners = np.array([place for _, place in queries])
    read = [" ".join(line["text"] for line in ours.document("ocr", "LINES", IMAGE=data)) for data in files]
    given = [
        {"IMAGE": data} | ({"TEXT": text.encode()} if text else {}) for data, text in zip(files, read, strict=True)
    ]
    images = np.stack([ours.vector("embed_multimodal_image", **each) for each in given])
    labels = np.load(_LABELS)
    published = np.stack([conse(_probabilities(ours, data), labels) for data in files])
    told = [ours.document("caption", "CAPTION", **each)["text"].encode() for each in given]
    sentences = np.stack([ours.vector("embed_text", TEXT=text) for text in told])
    asked = np.stack([ours.vector("embed_multimodal_text", TEXT=caption.encode()) for caption, _ in queries])
    plain = np.stack([ours.vector("embed_text", TEXT=caption.encode()) for caption, _ in queries])
    chance = {f"recall_at_{k}": round(min(1.0, k / len(files)), 3) for k in _RANKS}
    return {
        "queries": len(queries),
        "multimodal": recalls(asked @ images.T, owners),
        "conse": recalls(plain @ published.T, owners),
        "by_description": recalls(plain @ sentences.T, owners),
        "chance": chance,
    }


def conse(probabilities: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float32]:
    """ConSE as published: the class names' vectors [C,D], the likeliest classes' by probability [C], unit length."""
    top = np.argsort(-probabilities, kind="stable")[:_CONSE_TOP]
    total = probabilities[top] @ labels[top]
    return np.asarray(total / np.linalg.norm(total), np.float32)


def _probabilities(ours: Ours, image: bytes) -> NDArray[Any]:
    answer = ours.infer("embed_image", "PROBABILITIES", {"IMAGE": np.array([[image]], np.object_)})
    return np.asarray(answer[0])


def recalls(scores: NDArray[Any], owners: NDArray[Any]) -> dict[str, float]:
    """Recall@k of queries: ``scores`` [queries, photos], and for each query the photo that it is about.

    Photos with the owner's score stand before it.
    """
    own = scores[np.arange(len(owners)), owners]
    ranks = (scores >= own[:, None]).sum(axis=1)
    return {f"recall_at_{k}": round(float((ranks <= k).mean()), 3) for k in _RANKS}


def _by_copies(ours: Ours, photos: Sequence[Image.Image], files: Sequence[bytes]) -> dict[str, float]:
    gallery = np.stack([ours.vector("embed_image", IMAGE=data) for data in files])
    owners = np.arange(len(photos))
    found: dict[str, float] = {}
    for name in ("crop", "resize", "jpeg", "mirror", "tint"):
        vectors = np.stack([ours.vector("embed_image", IMAGE=edited(photo, name)) for photo in photos])
        found[name] = recalls(vectors @ gallery.T, owners)["recall_at_1"]
    found["overall"] = round(float(np.mean(list(found.values()))), 4)
    return found


def edited(photo: Image.Image, how: str) -> bytes:
    """A copy of a photo as people make them: crop, resize, jpeg (quality 30), mirror or tint."""
    width, height = photo.size
    if how == "crop":
        left, top = round(width * _CUT), round(height * _CUT)
        return _encoded(photo.crop((left, top, width - left, height - top)))
    if how == "resize":
        return _encoded(photo.resize((max(1, width // 2), max(1, height // 2)), Image.Resampling.LANCZOS))
    if how == "jpeg":
        return _encoded(photo, _LOW_QUALITY)
    if how == "mirror":
        return _encoded(ImageOps.mirror(photo))
    bands = [_brighter(band, by) for band, by in zip(photo.split(), _TINT, strict=True)]
    return _encoded(Image.merge("RGB", bands))


def _brighter(band: Image.Image, by: float) -> Image.Image:
    return band.point(lambda value: min(255, round(value * by)))


def _encoded(photo: Image.Image, quality: int = _JPEG_QUALITY) -> bytes:
    target = io.BytesIO()
    photo.save(target, "JPEG", quality=quality)
    return target.getvalue()


def report(keys: dict[str, Any]) -> list[str]:
    """The role's tables as lines of text."""
    found = keys["retrieval"]
    words = found["words"]
    lines = [f"photos by words: {found['photos']} photos, {words.get('queries', 0)} queries"]
    for name in ("multimodal", "conse", "by_description", "chance"):
        if "queries" in words:
            lines.append(f"  {name:16}" + "".join(f"R@{k} {words[name][f'recall_at_{k}']:.3f}  " for k in _RANKS))
    lines.append("photos by edited copies, rank 1: " + json.dumps(found["copies_rank1"]))
    return lines
