"""Computes the label matrix of the ConSE space: one sentence vector for each class and object name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
from lensmesh_models.conse import prompts
from lensmesh_models.sentences import encoder_inputs, load_tokenizer, pooled

_BATCH = 32


def build(encoder: Path, tokenizer: Path, class_names: Path, labels: Path, centre: Path) -> None:
    """Writes ``labels`` float32 [C+80,384] (unit rows) and ``centre`` float32 [384], their mean, as .npy files."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(encoder), options, providers=["CPUExecutionProvider"])
    tokens = load_tokenizer(tokenizer)
    sentences = prompts(json.loads(class_names.read_text(encoding="utf-8")))
    rows = []
    for start in range(0, len(sentences), _BATCH):
        inputs = encoder_inputs(tokens, sentences[start : start + _BATCH])
        (states,) = session.run(["last_hidden_state"], inputs)
        rows.append(pooled(states, inputs["attention_mask"]))
    matrix = np.concatenate(rows)
    np.save(labels, matrix)
    np.save(centre, matrix.mean(axis=0))
