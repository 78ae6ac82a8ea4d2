"""Composes a caption from what the detectors found: a template, not a generated sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

MODEL = "template-ssd-effnet-yunet-1"
_OBJECT_MIN, _CLASS_MIN, FACE_MIN = 0.55, 0.35, 0.8
_KINDS_MAX = 4
_TEXT_MAX = 120
_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}
_PLURALS = {
    "person": "people", "sheep": "sheep", "skis": "skis", "scissors": "scissors", "knife": "knives", "bus": "buses",
    "bench": "benches", "wine glass": "wine glasses", "toothbrush": "toothbrushes", "couch": "couches",
    "sandwich": "sandwiches", "mouse": "mice",
}  # fmt: skip


def compose(
    objects: Sequence[dict[str, Any]],
    classes: Sequence[dict[str, Any]],
    faces: Sequence[dict[str, Any]],
    text: str,
) -> str:
    """One English sentence from records with ``label`` and ``confidence``, face records and read text."""
    counts = Counter(item["label"] for item in objects if item["confidence"] >= _OBJECT_MIN)
    faces_seen = sum(face["confidence"] >= FACE_MIN for face in faces)
    counts["person"] = max(counts["person"], faces_seen)
    parts = [_counted(label, count) for label, count in (+counts).most_common(_KINDS_MAX)]
    guess = next((item for item in classes[:1] if item["confidence"] >= _CLASS_MIN), None)
    if guess is not None and not any(word in counts for word in (guess["label"], *guess["label"].split())):
        # The classifier names the main subject too, mostly what the detector has boxed already.
        parts.append(f"possibly {_counted(guess['label'], 1)}")
    quoted = " ".join(text.split())[:_TEXT_MAX]
    sentence = f"A photo of {_joined(parts)}" if parts else "An image"
    if quoted:
        return f'{sentence} with the text "{quoted}"'
    return sentence if parts else "An image without recognised content"


def _counted(label: str, count: int) -> str:
    if count == 1:
        return label if label.endswith("s") else f"{'an' if label[0].lower() in 'aeiou' else 'a'} {label}"
    return f"{_NUMBERS.get(count, 'several')} {_PLURALS.get(label, label + 's')}"


def _joined(parts: Sequence[str]) -> str:
    if len(parts) == 1:
        return parts[0]
    return f"{', '.join(parts[:-1])}{',' if parts[-1].startswith('possibly') else ' and'} {parts[-1]}"
