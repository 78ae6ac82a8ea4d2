"""``python -m models.train_logos.own``: fits the certainty of findings of uploaded marks, on real photos.

The marks are crops of FlickrLogos-27's training photos (Kalantidis et al. 2011), searched on other training photos and
on photos without a logo. What is printed are the weights of ``lensmesh_models.logo_marks.OWN``, before the bias is
lowered by the bar.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from lensmesh_models import logo_marks, logo_search
from lensmesh_models.images import decode
from lensmesh_models.logo_alignment import align
from lensmesh_models.logo_marks import OWN, SHIPPED, Mark, Region
from numpy.typing import NDArray

from models.train_logos.calibrate import Networks

_TRUTH = "flickr_logos_27_dataset_training_set_annotation.txt"
_CROPS_A_BRAND = 5  # the largest, one a photo
_EVERY = 2  # of the other training photos: as many as take minutes
_EMPTY_MAX = 300  # photos without a logo: the last ones, the first are what retrieval is measured on
_NAMES_MAX, _COSINE_MIN = 2, 0.3  # brands that are laid over a region, by their nearest crop
_SHORT_SIDE_PX, _OPAQUE = 960, 255
_RIDGE, _STEPS = 3.0, 80

Box = tuple[int, int, int, int]


def truth(path: Path) -> dict[str, set[tuple[str, Box]]]:
    """Photo -> (brand, box) of the training set's rows: file, brand, subset, x1 y1 x2 y2."""
    found: dict[str, set[tuple[str, Box]]] = {}
    for row in path.read_text().splitlines():
        name, brand, _, left, top, right, bottom = row.split()
        found.setdefault(name, set()).add((brand, (int(left), int(top), int(right), int(bottom))))
    return found


def crops(photos: dict[str, set[tuple[str, Box]]]) -> dict[str, list[tuple[str, Box]]]:
    """Brand -> (photo, box) of its largest instances."""
    largest: dict[tuple[str, str], tuple[int, Box]] = {}
    for name, marks in photos.items():
        for brand, box in marks:
            short = min(box[2] - box[0], box[3] - box[1])
            largest[brand, name] = max(largest.get((brand, name), (0, box)), (short, box))
    found: dict[str, list[tuple[int, str, Box]]] = {}
    for (brand, name), (short, box) in largest.items():
        found.setdefault(brand, []).append((-short, name, box))
    return {brand: [(name, box) for _, name, box in sorted(each)[:_CROPS_A_BRAND]] for brand, each in found.items()}


def uploaded(networks: Networks, folder: Path, chosen: dict[str, list[tuple[str, Box]]]) -> list[Mark]:
    """A mark for each crop, named by its brand."""
    marks = []
    for brand, places in chosen.items():
        for name, (left, top, right, bottom) in places:
            pixels = cv2.cvtColor(cv2.imread(str(folder / name)), cv2.COLOR_BGR2RGB)[top:bottom, left:right]
            opaque = np.dstack([pixels, np.full(pixels.shape[:2], _OPAQUE, np.uint8)])
            mark = logo_search.uploaded(opaque, networks.embed)
            marks.append(Mark(brand, mark.vectors, mark.patches, mark.boxes))
    return marks


def candidates(regions: Iterable[Region], marks: Sequence[Mark], vectors: Any) -> Iterator[tuple[str, list[float]]]:
    """Brand and features of the marks that are near enough to a region to be laid over it."""
    for region in regions:
        cosines = vectors @ region.vector
        named: list[str] = []
        for row in np.argsort(-cosines):
            mark = marks[row]
            if mark.name in named:
                continue
            named.append(mark.name)
            if len(named) > _NAMES_MAX or cosines[row] < _COSINE_MIN:
                break
            if not logo_marks.worth(float(cosines[row]), region, OWN):
                continue
            laid = align(region.patch, mark.patches[0], mark.boxes[0])
            if laid is not None:
                seen = logo_marks.features(region, mark.patches[0], float(cosines[row]), laid)
                yield mark.name, [seen[name] for name in logo_marks.FEATURES]


def fit(table: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    """Weights and bias of a logistic regression whose weights are drawn towards those of the gallery that ships."""
    x = np.concatenate([table, np.ones((len(table), 1))], axis=1)
    prior = np.array([*(SHIPPED.weights[name] for name in logo_marks.FEATURES), SHIPPED.bias])
    ridge = np.array([_RIDGE] * table.shape[1] + [1e-3])
    weights = prior.copy()

    def loss(at: NDArray[Any]) -> float:
        z = x @ at
        return float(np.logaddexp(0, z).sum() - (right * z).sum() + 0.5 * (ridge * (at - prior) ** 2).sum())

    for _ in range(_STEPS):  # Newton's method; a step that goes too far is halved
        chance = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        slope = x.T @ (right - chance) - ridge * (weights - prior)
        step = np.linalg.solve((x * (chance * (1 - chance))[:, None]).T @ x + np.diag(ridge), slope)
        share = 1.0
        while loss(weights + share * step) > loss(weights) and share > 1e-6:
            share /= 2
        weights = weights + share * step
    return weights


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m models.train_logos.own", description=__doc__)
    parser.add_argument("--logos", type=Path, required=True, help="folder of FlickrLogos-27")
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos without logos")
    parser.add_argument("--gallery", type=Path, default=Path("models/repository/logos/1/gallery.npz"))
    parser.add_argument("--networks", type=Path, default=Path("models/weights"))
    given = parser.parse_args()
    cv2.setNumThreads(1)
    networks, listed = Networks.read(given.networks), truth(next(given.logos.rglob(_TRUTH)))
    images = next(given.logos.rglob(next(iter(listed)))).parent
    chosen = crops(listed)
    marks = uploaded(networks, images, chosen)
    vectors = np.concatenate([mark.vectors for mark in marks])
    with np.load(given.gallery) as file:
        shipped = file["vectors"]
    used = {name for places in chosen.values() for name, _ in places}
    photos = [(images / name, {brand for brand, _ in listed[name]}) for name in listed if name not in used][::_EVERY]
    photos += [(path, set[str]()) for path in sorted(given.photos.rglob("*.jpg"))[-_EMPTY_MAX:]]
    table, right = [], []
    for path, brands in photos:
        picture = decode(path.read_bytes(), side_px=_SHORT_SIDE_PX)
        pixels = picture.pixels()
        regions = logo_search.regions(pixels, picture.width / pixels.shape[1], shipped, networks.detect, networks.embed)
        for name, features in candidates(regions, marks, vectors):
            table.append(features)
            right.append(name in brands)
    print(f"{len(photos)} photos, {len(table)} candidates, {sum(right)} of a brand that the photo shows")
    weights = fit(np.array(table), np.array(right, float))
    print({name: round(float(weight), 2) for name, weight in zip((*logo_marks.FEATURES, "bias"), weights, strict=True)})


if __name__ == "__main__":
    main()
