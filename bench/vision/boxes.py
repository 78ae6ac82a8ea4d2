"""Recall of found faces at a given precision, by boxes that overlap at least half (IoU, as PASCAL VOC and WIDER)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.vision.samples import Box, FaceSample

_OVERLAP_MIN = 0.5


@dataclass(frozen=True)
class Finding:
    """One detection of any image: its confidence 0..1 and whether it was a face."""

    confidence: float
    right: bool


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two [left, top, width, height]."""
    wide = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    high = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(wide, 0.0) * max(high, 0.0)
    union = a[2] * a[3] + b[2] * b[3] - shared
    return shared / union if union > 0 else 0.0


def judge(sample: FaceSample, faces: Sequence[dict[str, Any]]) -> list[Finding]:
    """Matches ``{"confidence", "box"}`` to the sample's faces, best first, each face once."""
    free = list(sample.boxes)
    findings = []
    for face in sorted(faces, key=lambda each: -float(each["confidence"])):
        box: Box = tuple(face["box"])
        best = max(free, key=lambda wanted: overlap(wanted, box), default=None)
        if best is not None and overlap(best, box) >= _OVERLAP_MIN:
            free.remove(best)
            findings.append(Finding(float(face["confidence"]), True))
        elif not any(overlap(ignored, box) > 0 for ignored in sample.ignored):
            findings.append(Finding(float(face["confidence"]), False))
    return findings


def precision(findings: Sequence[Finding], *, threshold: float) -> float:
    """Share of right ones among the findings from ``threshold`` up; 1 where there are none."""
    kept = [finding.right for finding in findings if finding.confidence >= threshold]
    return sum(kept) / len(kept) if kept else 1.0


def recall_at(findings: Sequence[Finding], expected: int, *, precision_min: float) -> float:
    """Largest share of the ``expected`` faces found by a threshold whose precision is at least ``precision_min``."""
    best = right = 0
    for count, finding in enumerate(sorted(findings, key=lambda each: -each.confidence), start=1):
        right += finding.right
        if right / count >= precision_min:
            best = max(best, right)
    return best / expected if expected else 0.0
