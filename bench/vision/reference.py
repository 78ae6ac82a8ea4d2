"""The reference libraries at their defaults, run in the bench environment: ``python -m bench.vision.reference``.

Text: rapidocr as it comes. Faces: OpenCV's FaceDetectorYN with the YuNet weights the faces model has too. Logos: SIFT.
"""

from __future__ import annotations

import argparse
import json
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Reader = Callable[[bytes], list[dict[str, Any]]]

# OpenCV's own sample for YuNet: score 0.9, suppression 0.3, the 5000 best before it, each image at its own size. The
# score is lowered here, so that recall can be taken at any precision; the recommended one is applied when it is scored.
FACE_SCORE = 0.9
_FACE_FLOOR, _FACE_OVERLAP, _FACES_MAX = 0.3, 0.3, 5000


def ocr(threads: int | None) -> Reader:
    """rapidocr's pipeline; ``threads`` None leaves its default of one a core."""
    import rapidocr  # type: ignore[import-not-found]

    settings: dict[str, Any] = {"Global.log_level": "error"}
    if threads is not None:
        settings |= {"EngineConfig.onnxruntime.intra_op_num_threads": threads}
        settings |= {"EngineConfig.onnxruntime.inter_op_num_threads": threads}
    engine = rapidocr.RapidOCR(params=settings)

    def run(data: bytes) -> list[dict[str, Any]]:
        found = engine(data)
        if not found.txts:
            return []
        rows = zip(found.txts, found.scores, found.boxes, strict=True)
        return [{"text": text, "confidence": float(score), "quad": quad.tolist()} for text, score, quad in rows]

    return run


def faces(weights: Path) -> Reader:
    """FaceDetectorYN with the weights of ``weights``."""
    import cv2  # type: ignore[import-not-found]
    import numpy as np

    detector = cv2.FaceDetectorYN.create(str(weights), "", (320, 320), _FACE_FLOOR, _FACE_OVERLAP, _FACES_MAX)

    def run(data: bytes) -> list[dict[str, Any]]:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        detector.setInputSize((image.shape[1], image.shape[0]))
        _, found = detector.detect(image)
        rows = [] if found is None else found.tolist()
        return [{"confidence": row[14], "box": row[:4]} for row in rows]

    return run


def logos(icons: Path, crops: Path | None) -> Reader:
    """Keypoint matching over the gallery of ``icons`` and the crops of a JSON list of [name, path, box]."""
    from bench.vision import keypoints

    return keypoints.finder(icons, json.loads(crops.read_text()) if crops else ())


def measure(reader: Reader, files: Sequence[str]) -> list[dict[str, Any]]:
    """Answer and CPU-ms of this process for each file; the first is read once before, to be warm."""
    reader(Path(files[0]).read_bytes())
    answers = []
    for file in files:
        data = Path(file).read_bytes()
        before = _cpu_s()
        found = reader(data)
        answers.append({"found": found, "cpu_ms": (_cpu_s() - before) * 1e3})
    return answers


def _cpu_s() -> float:
    parts = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(part.ru_utime + part.ru_stime for part in parts)


def main() -> None:
    """Reads a JSON list of files, writes a JSON list of answers."""
    parser = argparse.ArgumentParser(prog="python -m bench.vision.reference", description=__doc__)
    parser.add_argument("role", choices=("ocr", "faces", "logos"))
    parser.add_argument("files", type=Path)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--threads", type=int, help="threads of the text reader; its own default where left out")
    parser.add_argument("--icons", type=Path, help="the logo gallery's source")
    parser.add_argument("--crops", type=Path, help="marks beside that gallery")
    parser.add_argument("--weights", type=Path, help="the face detector's ONNX file")
    given = parser.parse_args()
    readers = {
        "ocr": lambda: ocr(given.threads),
        "faces": lambda: faces(given.weights),
        "logos": lambda: logos(given.icons, given.crops),
    }
    reader = readers[given.role]()
    given.answers.write_text(json.dumps(measure(reader, json.loads(given.files.read_text()))))


if __name__ == "__main__":
    main()
