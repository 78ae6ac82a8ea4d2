"""`make bench-batching`: whether a network of the lite set is cheaper an item in batches, through the real Triton.

CPU-ms an item over the server's processes by batch size, and the decision: batching is worth it where a batch of eight
costs at most BATCH_GAIN of eight single items. Networks whose inputs differ in size from item to item can't be batched
over requests whatever it saves; that is said beside the numbers.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.vision.engines import Ours, serving

RESULTS = Path(__file__).resolve().parent / "results" / "batching.json"
SIZES = (1, 2, 4, 8)
BATCH_GAIN = 0.9
# Items of each measurement: 32 batches of one to four of eight, after one to be warm.
_ITEMS = 32
_TOKENS = 24
_SEED = 1

Inputs = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Network:
    """A network, how a batch of its inputs is made, and whether every item has the same shape."""

    name: str
    output: str
    batch: Callable[[int, Any], Inputs]
    one_shape: bool


def _pixels(*dims: int, name: str = "IMAGE") -> Callable[[int, Any], Inputs]:
    return lambda size, rng: {name: rng.integers(0, 256, (size, *dims), np.uint8)}


def _tokens(size: int, rng: Any) -> Inputs:
    ids = rng.integers(1_000, 20_000, (size, _TOKENS), np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


NETWORKS = (
    Network("image_classifier", "FEATURES", _pixels(224, 224, 3), one_shape=True),
    Network("object_detector", "CONFIDENCE", _pixels(300, 300, 3), one_shape=True),
    Network("logo_encoder", "VECTOR", _pixels(64, 64, name="PATCH"), one_shape=True),
    Network("sentence_encoder", "last_hidden_state", _tokens, one_shape=False),
    Network("text_reader", "PROBABILITY", _pixels(48, 320, 3), one_shape=False),
    Network("text_detector", "PROBABILITY", _pixels(480, 640, 3), one_shape=False),
)


def measure(ours: Ours, network: Network) -> dict[str, Any]:
    """CPU-ms an item by batch size, and what follows."""
    rng = np.random.default_rng(_SEED)
    by_size = {}
    for size in SIZES:
        inputs = network.batch(size, rng)
        ours.infer(network.name, network.output, inputs)
        before = ours.cpu_s()
        for _ in range(_ITEMS // size):
            ours.infer(network.name, network.output, inputs)
        by_size[size] = round((ours.cpu_s() - before) * 1e3 / _ITEMS, 2)
    ratio = round(by_size[SIZES[-1]] / by_size[1], 2)
    return {
        "cpu_ms_per_item": by_size,
        "ratio": ratio,
        "one_shape": network.one_shape,
        "worth_it": ratio <= BATCH_GAIN,
    }


def main() -> None:
    """Measure, print, and write bench/results/batching.json."""
    with serving(tuple(network.name for network in NETWORKS)) as ours:
        found = {network.name: measure(ours, network) for network in NETWORKS}
    print(f"{'CPU-ms an item in batches of':29}" + "".join(f"{size:>8}" for size in SIZES) + "   ratio")
    for name, row in found.items():
        cells = "".join(f"{row['cpu_ms_per_item'][size]:8.2f}" for size in SIZES)
        shapes = "" if row["one_shape"] else ", items differ in shape"
        print(f"{name:29}{cells}{row['ratio']:8.2f}   {'helps' if row['worth_it'] else 'no gain'}{shapes}")
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    RESULTS.write_text(json.dumps({"networks": found, "machine": machine}, indent=2) + "\n")
    print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
