"""How the files of the standard set are built from what the hubs hold; what lite has besides, `fetch` adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from models.step import Step, copy

JOINT = "Xenova/siglip-base-patch16-224"
CAPTIONER = "onnx-community/Florence-2-base-ft"
SENTENCES = "intfloat/multilingual-e5-base"
OCR = "RapidAI/RapidOCR"
_EXPORTS, _FRONTS = "convert/exports.py", "convert/fronts.py"


# onnx is imported only by a step that runs: a run with nothing to do takes a fraction of a second.
def _image_tower(inputs: Mapping[str, Path], outputs: Sequence[Path]) -> None:
    from models.convert import exports

    exports.image_tower(inputs["vision_model.onnx"], outputs[0])


def _text_tower(inputs: Mapping[str, Path], outputs: Sequence[Path]) -> None:
    from models.convert import exports

    exports.text_tower(inputs["text_model.onnx"], outputs[0])


def _caption_vision(inputs: Mapping[str, Path], outputs: Sequence[Path]) -> None:
    from models.convert import exports

    exports.caption_vision(inputs["vision_encoder.onnx"], outputs[0])


def _caption_encoder(inputs: Mapping[str, Path], outputs: Sequence[Path]) -> None:
    from models.convert import exports

    exports.caption_encoder(inputs["encoder_model.onnx"], outputs[0])


def _multilingual_encoder(inputs: Mapping[str, Path], outputs: Sequence[Path]) -> None:
    from models.convert import exports

    exports.sentence_encoder(inputs["model.onnx"], outputs[0])


def _text_detector(inputs: Mapping[str, Path], outputs: Sequence[Path]) -> None:
    from models.convert import fronts

    fronts.text_detector(inputs["PP-OCRv6_det_medium.onnx"], outputs[0])


def _text_reader(inputs: Mapping[str, Path], outputs: Sequence[Path]) -> None:
    from models.convert import fronts

    fronts.text_reader(inputs["PP-OCRv6_rec_medium.onnx"], outputs[0], outputs[1])


STEPS = (
    Step(("image_tower/1/model.onnx",), (f"{JOINT}/onnx/vision_model.onnx",), (_EXPORTS,), _image_tower),
    Step(("joint_image/1/preprocessor_config.json",), (f"{JOINT}/preprocessor_config.json",), (), copy),
    Step(("text_tower/1/model.onnx",), (f"{JOINT}/onnx/text_model.onnx",), (_EXPORTS,), _text_tower),
    Step(
        ("joint_text/1/tokenizer.json", "joint_text/1/tokenizer_config.json"),
        (f"{JOINT}/tokenizer.json", f"{JOINT}/tokenizer_config.json"),
        (),
        copy,
    ),
    Step(("caption_vision/1/model.onnx",), (f"{CAPTIONER}/onnx/vision_encoder.onnx",), (_EXPORTS,), _caption_vision),
    Step(("caption_encoder/1/model.onnx",), (f"{CAPTIONER}/onnx/encoder_model.onnx",), (_EXPORTS,), _caption_encoder),
    Step(
        (
            "captioner/1/decoder.onnx",
            "captioner/1/embedder.onnx",
            "captioner/1/tokenizer.json",
            "captioner/1/preprocessor_config.json",
        ),
        (
            f"{CAPTIONER}/onnx/decoder_model_merged.onnx",
            f"{CAPTIONER}/onnx/embed_tokens.onnx",
            f"{CAPTIONER}/tokenizer.json",
            f"{CAPTIONER}/preprocessor_config.json",
        ),
        (),
        copy,
    ),
    Step(("multilingual_encoder/1/model.onnx",), (f"{SENTENCES}/onnx/model.onnx",), (_EXPORTS,), _multilingual_encoder),
    Step(
        ("multilingual_text/1/tokenizer.json", "multilingual_text/1/tokenizer_config.json"),
        (f"{SENTENCES}/onnx/tokenizer.json", f"{SENTENCES}/onnx/tokenizer_config.json"),
        (),
        copy,
    ),
    Step(
        ("text_detector_medium/1/model.onnx",),
        (f"{OCR}/onnx/PP-OCRv6/det/PP-OCRv6_det_medium.onnx",),
        (_FRONTS,),
        _text_detector,
    ),
    Step(
        ("text_reader_medium/1/model.onnx", "ocr_medium/1/characters.txt"),
        (f"{OCR}/onnx/PP-OCRv6/rec/PP-OCRv6_rec_medium.onnx",),
        (_FRONTS,),
        _text_reader,
    ),
)
