"""The log-probability of a caption by a decoder without cache or beams, in Triton's environment: a second opinion.

Arguments: the hub's folder of the captioner, the picture, the caption. Prints one number.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image
from tokenizers import Tokenizer

folder, picture, caption = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
networks = {
    name: onnxruntime.InferenceSession(str(folder / "onnx" / f"{name}.onnx"))
    for name in ("vision_encoder", "embed_tokens", "encoder_model", "decoder_model_merged")
}
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))


def embedded(ids: list[int]) -> np.ndarray:
    return networks["embed_tokens"].run(None, {"input_ids": np.array([ids])})[0]


values = np.asarray(Image.open(picture).convert("RGB").resize((768, 768), Image.Resampling.BICUBIC), np.float32) / 255
values = (values - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
pixels = values.transpose(2, 0, 1)[None].astype(np.float32)
features = networks["vision_encoder"].run(None, {"pixel_values": pixels})[0]
seen = np.concatenate([features, embedded(tokenizer.encode("What does the image describe?").ids)], axis=1)
mask = np.ones(seen.shape[:2], np.int64)
states = networks["encoder_model"].run(None, {"inputs_embeds": seen, "attention_mask": mask})[0]
begin, end = tokenizer.token_to_id("<s>"), tokenizer.token_to_id("</s>")
words = tokenizer.encode(caption, add_special_tokens=False).ids
feed = {
    "inputs_embeds": embedded([end, begin, *words]),
    "encoder_hidden_states": states,
    "encoder_attention_mask": mask,
    "use_cache_branch": np.array([False]),
}
for value in networks["decoder_model_merged"].get_inputs():
    if value.name.startswith("past_key_values."):
        feed[value.name] = np.zeros((1, value.shape[1], 0, value.shape[3]), np.float32)
logits = networks["decoder_model_merged"].run(["logits"], feed)[0][0, 1:].astype(np.float64)
beliefs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
print(sum(beliefs[place, token] for place, token in enumerate([*words, end])))
