"""``python -m models.train_logos.calibrate``: fits the certainty of findings on new composites.

Prints the weights for ``lensmesh_models.logo_marks``, and what the whole search finds at each bar.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from lensmesh_models import logo_marks, logo_search
from lensmesh_models.logo_alignment import align
from numpy.typing import NDArray

from models.convert.gallery import save
from models.train_logos import composites, data

_SIZES = ((640, 480), (800, 600), (480, 640), (1024, 768))
_LONGS = (32.0, 320.0)
_OVERLAP_MIN = 0.5


@dataclass
class Networks:
    """The two exported networks."""

    detector: onnxruntime.InferenceSession
    encoder: onnxruntime.InferenceSession

    @classmethod
    def read(cls, folder: Path) -> Networks:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return cls(
            *(
                onnxruntime.InferenceSession(str(folder / f"logo_{name}.onnx"), options)
                for name in ("detector", "encoder")
            )
        )

    def detect(self, canvas: NDArray[np.uint8]) -> dict[str, Any]:
        return dict(zip(("SCORES", "SIDES"), self.detector.run(["SCORES", "SIDES"], {"IMAGE": canvas}), strict=True))

    def embed(self, patches: NDArray[np.uint8]) -> Any:
        return self.encoder.run(["VECTOR"], {"PATCH": patches})[0]


@dataclass(frozen=True)
class Plan:
    """How many pictures are drawn, and from which seed."""

    pictures: int
    seed: int


@dataclass(frozen=True)
class Truth:
    """A mark that was drawn into a picture."""

    picture: int
    name: str
    box: NDArray[Any]


@dataclass(frozen=True)
class Candidate:
    """A mark of the gallery laid over a region: what it is judged by, and the truth that it shows (index) or -1."""

    picture: int
    region: int
    features: dict[str, float]
    truth: int


def examine(
    networks: Networks, marks: Sequence[composites.Mark], gallery: dict[str, Any], photos: list[Any], plan: Plan
) -> tuple[list[Truth], list[Candidate]]:
    """All candidates of all regions over the pictures of the plan."""
    rng = np.random.default_rng(plan.seed)
    truths: list[Truth] = []
    candidates: list[Candidate] = []
    shipped = logo_marks.Gallery.read(gallery)
    for number in range(plan.pictures):
        size = _SIZES[int(rng.integers(len(_SIZES)))]
        image, placed = composites.picture([mark.mask for mark in marks], photos, size, _LONGS, rng)
        first = len(truths)
        truths += [Truth(number, marks[index].name, composites.box_of(quad)) for index, quad in placed]
        wanted = list(enumerate(truths))[first:]
        regions = logo_search.regions(image, 1.0, gallery["vectors"], networks.detect, networks.embed)
        for index, (region, near) in enumerate(zip(regions, shipped.nearest(regions), strict=True)):
            for mark in near:
                (drawing,), (box,), cosine = mark.patches, mark.boxes, float(mark.vectors[0] @ region.vector)
                worth = logo_marks.worth(cosine, region, logo_marks.SHIPPED)
                laid = align(region.patch, drawing, box) if worth else None
                if laid is None:
                    continue
                features = logo_marks.features(region, drawing, cosine, laid)
                seen = composites.box_of(np.array(logo_marks.corners(region, box, laid), np.float32))
                fits = [at for at, truth in wanted if truth.name == mark.name and _lies_on(seen, truth.box)]
                candidates.append(Candidate(number, index, features, fits[0] if fits else -1))
    return truths, candidates


def _lies_on(seen: NDArray[Any], box: NDArray[Any]) -> bool:
    inner = np.prod(np.maximum(np.minimum(seen[2:], box[2:]) - np.maximum(seen[:2], box[:2]), 0))
    return bool(inner >= _OVERLAP_MIN * (np.prod(seen[2:] - seen[:2]) + np.prod(box[2:] - box[:2]) - inner))


def fit(table: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    """Weights and bias of a logistic regression, by Newton's method with a little ridge."""
    x = np.concatenate([table, np.ones((len(table), 1))], axis=1)
    weights = np.zeros(x.shape[1])
    for _ in range(40):
        chance = 1 / (1 + np.exp(-x @ weights))
        slope = x.T @ (right - chance) - 0.05 * weights
        bend = (x * (chance * (1 - chance))[:, None]).T @ x + 0.05 * np.eye(x.shape[1])
        weights = weights + np.linalg.solve(bend, slope)
    return weights


def curve(
    truths: Sequence[Truth], candidates: Sequence[Candidate], logits: NDArray[Any]
) -> list[tuple[float, float, float]]:
    """(bar, precision, recall) of the best candidate of each region."""
    best: dict[tuple[int, int], int] = {}
    for index, candidate in enumerate(candidates):
        key = (candidate.picture, candidate.region)
        if key not in best or logits[index] > logits[best[key]]:
            best[key] = index
    known = sum(not composites.is_stranger(truth.name) for truth in truths)
    points = []
    for bar in np.arange(-3, 6, 0.5):
        kept = [candidates[index] for index in best.values() if logits[index] >= bar]
        hits = len({candidate.truth for candidate in kept if candidate.truth >= 0})
        wrong = sum(candidate.truth < 0 for candidate in kept)
        points.append((float(bar), hits / max(1, hits + wrong), hits / known))
    return points


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m models.train_logos.calibrate", description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--icons", type=Path, required=True)
    parser.add_argument("--networks", type=Path, default=Path("models/weights"))
    parser.add_argument("--gallery", type=Path, required=True, help="file that the gallery is written to")
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    networks, marks = Networks.read(given.networks), composites.marks(given.icons)
    known = [(mark.name, mark.mask) for mark in marks if not composites.is_stranger(mark.name)]
    save(known, networks.embed, given.gallery)
    with np.load(given.gallery) as file:
        gallery = dict(file)
    # Marks that the networks never saw, and strangers, are drawn about as often as those they know.
    fresh = [mark for mark in marks if composites.is_unseen(mark.name)]
    old = [mark for mark in marks if not composites.is_unseen(mark.name)]
    drawn = fresh * 2 + old[: 2 * len(fresh)]
    plan = Plan(given.pictures, given.seed)
    truths, candidates = examine(networks, drawn, gallery, data.photos(given.photos), plan)
    table = np.array([[candidate.features[name] for name in logo_marks.FEATURES] for candidate in candidates])
    right = np.array([candidate.truth >= 0 for candidate in candidates])
    print(f"{len(truths)} marks, {len(candidates)} candidates, {int(right.sum())} right")
    weights = fit(table, right)
    print({name: round(float(weight), 2) for name, weight in zip((*logo_marks.FEATURES, "bias"), weights, strict=True)})
    for point in curve(truths, candidates, table @ weights[:-1] + weights[-1]):
        print("bar {:4.1f} precision {:.3f} recall {:.3f}".format(*point))


if __name__ == "__main__":
    main()
