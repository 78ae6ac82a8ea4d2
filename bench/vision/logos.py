"""Logos: precision and recall of ``logos`` beside plain keypoint matching over the same gallery.

On rendered samples read lines are given as none, so that neither reading nor wordmarks count. On photos with crops of
marks beside them, the crops are a namespace's own marks, and each way is measured: with read lines, as the mesh finds
logos, without, and by the gallery that ships alone.
"""

from __future__ import annotations

import json
import re
import tempfile
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.vision.boxes import Finding, overlap, precision, recall_at
from bench.vision.engines import ROOT, Answer, Ours, reference, serving
from bench.vision.own_logos import MODELS as OWN_MODELS
from bench.vision.own_logos import NO_LINES, OwnLogos
from bench.vision.samples import Box, LogoCrop, LogoSample, Point, paths

_NETWORKS = ("logos", "logo_detector", "logo_encoder")
MODELS = (*_NETWORKS, *OWN_MODELS)
# What was tuned on; it counts in its own row only.
_TUNED_ON = "training"
_PRECISION_MIN = 0.9
_OVERLAP_MIN = 0.5
_CURVE = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_GALLERY_SIZES = (100, 5000)
_TIMED_IMAGES = 24
_ICONS = "simpleicons/icons.py"
_LETTERS = re.compile("[^a-z0-9]+")
# Where FlickrLogos-27 spells a brand unlike its owner.
_SPELLINGS = {"unisef": "unicef"}


def icons() -> Path:
    """The icon collection in the cache, as the fetch step has verified it."""
    listed = json.loads((ROOT / "models" / "sources" / "lite.json").read_text())["packages"]
    sha256 = next(package["files"][_ICONS] for package in listed if _ICONS in package["files"])
    return ROOT / ".cache" / "weights" / str(sha256)


def measure(ours: Ours, samples: Sequence[LogoSample], crops: Sequence[LogoCrop] = ()) -> dict[str, Any]:
    """The keys of this role. Recall is over marks of the gallery; precision over everything that was named."""
    files = paths(samples)
    ways: dict[str, dict[str, Any]] = {}
    if crops:
        found = OwnLogos(ours, crops).answers(files)
        with tempfile.TemporaryDirectory(prefix="lensmesh-bench-") as folder:
            listed = Path(folder) / "crops.json"
            listed.write_text(json.dumps([(crop.name, crop.path, crop.box) for crop in crops]))
            plain = reference("logos", files, "--icons", str(icons()), "--crops", str(listed))
        answers = found.read
        ways["logos_without_reading"] = _rows(samples, found.unread, plain)
        ways["logos_shipped_gallery"] = _rows(
            samples, found.shipped, reference("logos", files, "--icons", str(icons()))
        )
        ways["logos_reading"] = {"cpu_ms_per_image": found.reading_cpu_ms, "crops": len(crops)}
    else:
        answers = ours.answers("logos", "LOGOS", files, LINES=NO_LINES)
        plain = reference("logos", files, "--icons", str(icons()))
    rows = _rows(samples, answers, plain)
    overall = rows["overall"]
    return {
        "logos_precision": overall["precision"],
        "logos_recall": overall["recall"],
        "logos_recall_ratio_to_keypoints": overall["recall_ratio"],
        "logos_cpu_ms_per_image": overall["cpu_ms_per_image"],
        "logos_gallery_sizes": {str(size): _cost(size, files[:_TIMED_IMAGES]) for size in _GALLERY_SIZES},
        "logos_curve": _curve(samples, answers),
        "logos": rows,
    } | ways


def _counted(samples: Sequence[LogoSample]) -> list[str]:
    subsets = dict.fromkeys(sample.subset for sample in samples)
    return [name for name in subsets if name != _TUNED_ON] or list(subsets)


def _rows(samples: Sequence[LogoSample], ours: Sequence[Answer], plain: Sequence[Answer]) -> dict[str, Any]:
    """A row for each subset, and one for all that nothing was tuned on."""
    bar = float(json.loads((ROOT / "models" / "sets" / "lite.json").read_text())["roles"]["logos"]["threshold"])
    subsets = dict.fromkeys(sample.subset for sample in samples)
    rows = {name: _row(samples, ours, plain, (name,), bar) for name in subsets}
    return rows | {"overall": _row(samples, ours, plain, _counted(samples), bar)}


def _curve(samples: Sequence[LogoSample], answers: Sequence[Answer]) -> list[dict[str, float]]:
    counted = _counted(samples)
    findings = _findings(samples, answers, counted)
    expected = sum(len(sample.names) for sample in samples if sample.known and sample.subset in counted)
    return [
        {
            "confidence": at,
            "precision": round(precision(findings, threshold=at), 4),
            "recall": _recall(findings, expected, at),
        }
        for at in _CURVE
    ]


def judge(sample: LogoSample, logos: Sequence[dict[str, Any]]) -> list[Finding]:
    """Matches ``{"name", "confidence", "quad"}`` to the sample's marks, best first, each mark once.

    On a photo that is labelled as a whole each name counts once; a name that its labels do not speak of counts not.
    """
    boxes: list[Box | None] = [_around(quad) for quad in sample.quads]
    boxes += [None] * (len(sample.names) - len(boxes))
    free = list(zip(map(_plain, sample.names), boxes, strict=True)) if sample.known else []
    labelled = {_plain(name) for name in sample.labelled}
    named: set[str] = set()
    findings = []
    for logo in sorted(logos, key=lambda each: -float(each["confidence"])):
        name = _plain(logo["name"])
        if (labelled and name not in labelled and sample.names) or (name in named and not sample.quads):
            continue
        named.add(name)
        fits = [mark for mark in free if mark[0] == name and _lies_on(mark[1], logo["quad"])]
        if fits:
            free.remove(fits[0])
        findings.append(Finding(float(logo["confidence"]), bool(fits)))
    return findings


def _unjudged(sample: LogoSample, logos: Sequence[dict[str, Any]], bar: float) -> int:
    """Brands that were named and that the sample's labels say nothing about."""
    labelled = {_plain(name) for name in sample.labelled}
    named = {_plain(logo["name"]) for logo in logos if float(logo["confidence"]) >= bar}
    return len(named - labelled) if labelled and sample.names else 0


def _plain(name: str) -> str:
    """Small letters and digits alone: data sets write names their own way."""
    ascii_only = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    letters = _LETTERS.sub("", ascii_only)
    return _SPELLINGS.get(letters, letters)


def _lies_on(wanted: Box | None, quad: Sequence[Sequence[float]]) -> bool:
    """Whether a finding is where the mark is; an image that is labelled as a whole says nothing against it."""
    return wanted is None or overlap(wanted, _around(quad)) >= _OVERLAP_MIN


def _around(quad: Sequence[Point] | Sequence[Sequence[float]]) -> Box:
    xs, ys = [float(x) for x, _ in quad], [float(y) for _, y in quad]
    return (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))


def _findings(samples: Sequence[LogoSample], answers: Sequence[Answer], subsets: Sequence[str]) -> list[Finding]:
    chosen = [(sample, answer) for sample, answer in zip(samples, answers, strict=True) if sample.subset in subsets]
    return [finding for sample, answer in chosen for finding in judge(sample, answer.found)]


def _recall(findings: Sequence[Finding], expected: int, at: float) -> float:
    right = sum(finding.right for finding in findings if finding.confidence >= at)
    return round(right / expected, 4) if expected else 0.0


def _row(
    samples: Sequence[LogoSample], ours: Sequence[Answer], plain: Sequence[Answer], subsets: Sequence[str], bar: float
) -> dict[str, Any]:
    chosen = [index for index, sample in enumerate(samples) if sample.subset in subsets]
    expected = sum(len(samples[index].names) for index in chosen if samples[index].known)
    found, other = _findings(samples, ours, subsets), _findings(samples, plain, subsets)
    kept = [finding for finding in found if finding.confidence >= bar]
    recall = _recall(found, expected, bar)
    # Compared is what each finds at the bar that is best for it on these very images; ``recall`` is at the set's bar.
    best = recall_at(found, expected, precision_min=_PRECISION_MIN)
    reached = recall_at(other, expected, precision_min=_PRECISION_MIN)
    return {
        "images": len(chosen),
        "marks": expected,
        "precision": round(precision(found, threshold=bar), 4),
        "recall": recall,
        "wrong": sum(not finding.right for finding in kept),
        "unjudged": sum(_unjudged(samples[index], ours[index].found, bar) for index in chosen),
        "recall_at_precision": round(best, 4),
        "keypoints_recall": round(reached, 4),
        "recall_ratio": round(best / reached, 2) if reached else None,
        "cpu_ms_per_image": round(sum(ours[index].cpu_ms for index in chosen) / max(1, len(chosen)), 1),
        "keypoints_cpu_ms_per_image": round(sum(plain[index].cpu_ms for index in chosen) / max(1, len(chosen)), 1),
    }


def _cost(size: int, files: Sequence[str]) -> dict[str, float]:
    """CPU and wall ms an image with a gallery of ``size`` marks: the first that ship, or those and blurred copies."""
    with tempfile.TemporaryDirectory(prefix="lensmesh-bench-") as folder:
        repository = Path(folder) / "repository"
        _with_gallery(ROOT / "models" / "repository", repository, size)
        with serving(_NETWORKS, repository) as ours:
            answers = ours.answers("logos", "LOGOS", files, LINES=NO_LINES)
    cpu = sum(answer.cpu_ms for answer in answers) / len(answers)
    return {"cpu_ms": round(cpu, 1), "ms": round(sum(answer.ms for answer in answers) / len(answers), 1)}


def _with_gallery(source: Path, target: Path, size: int) -> None:
    """A copy of the repository, by links, whose gallery has ``size`` marks."""
    (target / "logos" / "1").mkdir(parents=True)
    for path in source.iterdir():
        if path.name != "logos":
            (target / path.name).symlink_to(path)
    (target / "logos" / "config.pbtxt").symlink_to(source / "logos" / "config.pbtxt")
    for path in (source / "logos" / "1").iterdir():
        if path.name != "gallery.npz" and path.is_file():
            (target / "logos" / "1" / path.name).symlink_to(path)
    with np.load(source / "logos" / "1" / "gallery.npz") as gallery:
        rows = np.arange(size) % len(gallery["names"])
        vectors = gallery["vectors"][rows]
        # Copies point elsewhere: 0.05 in each of 128 dimensions turns a vector by about 30 degrees.
        vectors = (
            vectors
            + np.random.default_rng(0).normal(0, 0.05, vectors.shape)
            * (np.arange(size) >= len(gallery["names"]))[:, None]
        )
        vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        arrays = {name: gallery[name][rows] for name in ("names", "patches", "boxes")}
    with (target / "logos" / "1" / "gallery.npz").open("wb") as file:
        np.savez(file, vectors=vectors, **arrays)


def report(keys: dict[str, Any]) -> list[str]:
    """The role's tables as lines of text."""
    lines = _table("logos", keys["logos"])
    for way in ("logos_without_reading", "logos_shipped_gallery"):
        lines += _table(way.removeprefix("logos_").replace("_", " "), keys[way]) if way in keys else []
    lines += [f"{name}: {value}" for name, value in keys.get("logos_reading", {}).items()]
    lines += [
        f"gallery of {size}: {cost['cpu_ms']} CPU-ms, {cost['ms']} ms"
        for size, cost in keys["logos_gallery_sizes"].items()
    ]
    return lines


def _table(title: str, rows: dict[str, Any]) -> list[str]:
    head = (
        "images  marks   precision   wrong unjudged   recall   where precision is 0.9 (keypoints)   CPU-ms (keypoints)"
    )
    return [f"{title:16}{head}"] + [
        f"{name:15}{row['images']:7}{row['marks']:7}   {row['precision']:.3f}  {row['wrong']:9}{row['unjudged']:9}   "
        f"{row['recall']:.3f}    {row['recall_at_precision']:.3f} ({row['keypoints_recall']:.3f})"
        f"{row['cpu_ms_per_image']:29.0f} ({row['keypoints_cpu_ms_per_image']:.0f})"
        for name, row in rows.items()
    ]
