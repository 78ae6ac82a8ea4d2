"""Text: word recall, word precision and CPU time of the ``ocr`` model beside rapidocr as it comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.vision.engines import Answer, Ours, reference
from bench.vision.samples import TextSample, paths
from bench.vision.words import Tally, score

MODELS = ("ocr", "text_detector", "text_reader")
# What the overall figures are of; the other subsets show what one side cannot do at all, and would drown them.
_COUNTED = ("documents", "small", "scene", "icdar2015")


@dataclass(frozen=True)
class Side:
    """One side's result on some samples."""

    words: Tally
    cpu_ms: float

    def __add__(self, other: Side) -> Side:
        return Side(self.words + other.words, self.cpu_ms + other.cpu_ms)


def measure(ours: Ours, samples: Sequence[TextSample]) -> dict[str, Any]:
    """The keys of this role; ratios are ours over the reference's, so more is better but for CPU."""
    files = paths(samples)
    answered = {
        "ours": ours.answers("ocr", "LINES", files),
        "reference": reference("ocr", files),
        "reference_one_thread": reference("ocr", files, "--threads", "1"),
    }
    subsets = list(dict.fromkeys(sample.subset for sample in samples))
    counted = [subset for subset in subsets if subset in _COUNTED]
    table: dict[str, dict[str, Side]] = {
        subset: {side: _side(samples, answers, (subset,)) for side, answers in answered.items()} for subset in subsets
    }
    table["overall"] = {side: _side(samples, answers, counted) for side, answers in answered.items()}
    details = {name: _details(row, sum(sample.subset == name for sample in samples)) for name, row in table.items()}
    details["overall"] = _details(table["overall"], sum(sample.subset in counted for sample in samples))
    ratios: dict[str, float | None] = {}
    for name, row in table.items():
        suffix = "" if name == "overall" else f"_{name}"
        mine, other, one = row["ours"], row["reference"], row["reference_one_thread"]
        ratios[f"ocr_word_recall_ratio{suffix}"] = _ratio(mine.words.recall, other.words.recall)
        ratios[f"ocr_precision_ratio{suffix}"] = _ratio(mine.words.precision, other.words.precision)
        ratios[f"ocr_cpu_ratio{suffix}"] = _ratio(mine.cpu_ms, other.cpu_ms)
        ratios[f"ocr_cpu_ratio_one_thread{suffix}"] = _ratio(mine.cpu_ms, one.cpu_ms)
    return {**ratios, "ocr": details}


def _side(samples: Sequence[TextSample], answers: Sequence[Answer], subsets: Sequence[str]) -> Side:
    sides = [
        Side(score(sample, answer.found), answer.cpu_ms)
        for sample, answer in zip(samples, answers, strict=True)
        if sample.subset in subsets
    ]
    return sum(sides, Side(Tally(), 0.0))


def _ratio(ours: float, other: float) -> float | None:
    """None where the other side has nothing to compare with."""
    return round(ours / other, 3) if other else None


def _details(row: dict[str, Side], images: int) -> dict[str, Any]:
    return {
        "images": images,
        "words": row["ours"].words.expected,
        **{
            side: {
                "recall": round(result.words.recall, 4),
                "precision": round(result.words.precision, 4),
                "cpu_ms_per_image": round(result.cpu_ms / max(images, 1), 1),
            }
            for side, result in row.items()
        },
    }


def report(keys: dict[str, Any]) -> list[str]:
    """The role's table as lines of text."""
    lines = [f"{'text':11}{'images':>7}{'words':>7}   recall       precision    CPU-ms an image   (ours / reference)"]
    for name, row in keys["ocr"].items():
        ours, other = row["ours"], row["reference"]
        one = row["reference_one_thread"]["cpu_ms_per_image"]
        lines.append(
            f"{name:11}{row['images']:7}{row['words']:7}   {ours['recall']:.3f}/{other['recall']:.3f}"
            f"  {ours['precision']:.3f}/{other['precision']:.3f}"
            f"  {ours['cpu_ms_per_image']:.0f}/{other['cpu_ms_per_image']:.0f} (one thread {one:.0f})"
        )
    return lines
