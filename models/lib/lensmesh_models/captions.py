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
    if guess is not None and any(word in counts for word in (guess["label"], *guess["label"].split())):
        guess = None
    sentence = f"A photo of {_joined(parts)}" if parts else "An image"
    if guess is not None:
        # The classifier names the main subject too, mostly what the detector has boxed already.
        label = _counted(guess["label"], 1)
        sentence = f"{sentence}, possibly {label}" if parts else f"Possibly a photo of {label}"
    if parts or guess or text.split():
        return quoted(sentence, text)
    return "An image without recognised content"


def quoted(sentence: str, text: str) -> str:
    """The sentence with the beginning of the read text, if there is any."""
    words = " ".join(text.split())[:_TEXT_MAX]
    return f'{sentence.rstrip(".")} with the text "{words}"' if words else sentence


def _counted(label: str, count: int) -> str:
    if count == 1:
        return label if label.endswith("s") else f"{'an' if label[0].lower() in 'aeiou' else 'a'} {label}"
    return f"{_NUMBERS.get(count, 'several')} {_PLURALS.get(label, label + 's')}"


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
