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
_FEATURES = ("cosine", "likeness", "edges", "detail", "size")


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


def overlap(first: NDArray[Any], second: NDArray[Any]) -> float:
    """IoU of two boxes (left, top, right, bottom)."""
    inner = np.prod(np.maximum(np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2]), 0))
    return float(inner / (np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2]) - inner))


def examine(
    networks: Networks,
    marks: Sequence[composites.Mark],
    gallery: dict[str, Any],
    photos: list[Any],
    count: int,
    seed: int,
) -> dict[str, Any]:
    """Features of every candidate of every region, with what it is, over ``count`` drawn pictures."""
    rng = np.random.default_rng(seed)
    rows, truths, seen_regions = [], [], 0
    for number in range(count):
        size = _SIZES[int(rng.integers(len(_SIZES)))]
        image, placed = composites.picture([mark.mask for mark in marks], photos, size, _LONGS, rng)
        wanted = [(marks[index].name, composites.box_of(quad)) for index, quad in placed]
        regions = logo_search.regions(image, 1.0, networks.detect, networks.embed)
        seen_regions += len(regions)
        for name, box in wanted:
            hit = max((overlap(np.array(region.box), box) for region in regions), default=0)
            near = [r for r in regions if overlap(np.array(r.box), box) >= _OVERLAP_MIN]
            rank1 = any(gallery["names"][int((gallery["vectors"] @ r.vector).argmax())] == name for r in near)
            top3 = any(name in gallery["names"][logo_marks.nearest(r.vector, gallery["vectors"])] for r in near)
            kind = "stranger" if composites.is_stranger(name) else "unseen" if composites.is_unseen(name) else "trained"
            truths.append(
                {
                    "picture": number,
                    "kind": kind,
                    "hit": hit,
                    "rank1": rank1,
                    "top3": top3,
                    "long": float((box[2:] - box[:2]).max()),
                }
            )
        for region_index, region in enumerate(regions):
            cosines = gallery["vectors"] @ region.vector
            for row in logo_marks.nearest(region.vector, gallery["vectors"]):
                laid = align(region.patch, gallery["patches"][row], tuple(gallery["boxes"][row]))
                if laid is None:
                    continue
                features = logo_marks.features(region, gallery["patches"][row], float(cosines[row]), laid)
                name = str(gallery["names"][row])
                at = next(
                    (
                        i
                        for i, (other, box) in enumerate(wanted)
                        if other == name and overlap(np.array(region.box), box) >= _OVERLAP_MIN
                    ),
                    -1,
                )
                others = [
                    float(c)
                    for c, n in zip(np.sort(cosines)[::-1][:6], gallery["names"][np.argsort(-cosines)[:6]], strict=True)
                    if n != name
                ]
                rows.append(
                    {
                        **features,
                        "margin": float(cosines[row]) - max(others),
                        "score": region.confidence,
                        "right": at >= 0,
                        "picture": number,
                        "region": region_index,
                        "truth": at,
                        "name": name,
                    }
                )
    return {"rows": rows, "truths": truths, "regions": seen_regions}


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


def curve(found: dict[str, Any], logits: NDArray[Any]) -> list[tuple[float, float, float, float]]:
    """(bar, precision, recall, recall of unseen marks) of the best candidate of each region."""
    best: dict[tuple[int, int], int] = {}
    for index, row in enumerate(found["rows"]):
        key = (row["picture"], row["region"])
        if key not in best or logits[index] > logits[best[key]]:
            best[key] = index
    truths, points = found["truths"], []
    keys: dict[tuple[int, int], int] = {}
    for index, truth in enumerate(truths):
        keys[(truth["picture"], sum(t["picture"] == truth["picture"] for t in truths[:index]))] = index
    known = sum(truth["kind"] != "stranger" for truth in truths)
    unseen = sum(truth["kind"] == "unseen" for truth in truths)
    for bar in np.arange(-4, 8, 0.5):
        kept = [found["rows"][i] for i in best.values() if logits[i] >= bar]
        hits = {(row["picture"], row["truth"]) for row in kept if row["right"]}
        wrong = sum(not row["right"] for row in kept)
        fresh = sum(truths[keys[hit]]["kind"] == "unseen" for hit in hits)
        points.append((float(bar), len(hits) / max(1, len(hits) + wrong), len(hits) / known, fresh / max(1, unseen)))
    return points


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m models.train_logos.calibrate", description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--icons", type=Path, required=True)
    parser.add_argument("--networks", type=Path, default=Path("models/weights"))
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    networks, marks = Networks.read(given.networks), composites.marks(given.icons)
    path = given.networks / "gallery.npz"
    save([(mark.name, mark.mask) for mark in marks if not composites.is_stranger(mark.name)], networks.embed, path)
    gallery = dict(np.load(path))
    # Marks that the networks never saw, and strangers, are drawn as often as those they know.
    drawn = [m for m in marks if composites.is_unseen(m.name)] * 2 + [
        m for m in marks if not composites.is_unseen(m.name)
    ][:1000]
    found = examine(networks, drawn, gallery, data.photos(given.photos), given.pictures, given.seed)
    truths = found["truths"]
    for kind in ("trained", "unseen", "stranger"):
        of = [truth for truth in truths if truth["kind"] == kind]
        print(
            kind,
            len(of),
            *(f"{key} {np.mean([truth[key] >= 0.5 for truth in of]):.3f}" for key in ("hit", "rank1", "top3")),
        )
    table = np.array([[row[name] for name in _FEATURES] for row in found["rows"]])
    right = np.array([row["right"] for row in found["rows"]])
    print(found["regions"], "regions,", len(right), "candidates,", int(right.sum()), "right")
    for names in (_FEATURES, (*_FEATURES, "margin"), (*_FEATURES, "margin", "score")):
        table = np.array([[row[name] for name in names] for row in found["rows"]])
        weights = fit(table, right)
        print({name: round(float(w), 2) for name, w in zip((*names, "bias"), weights, strict=True)})
        for point in curve(found, table @ weights[:-1] + weights[-1]):
            print("bar {:5.1f} precision {:.3f} recall {:.3f} unseen {:.3f}".format(*point))


if __name__ == "__main__":
    main()
