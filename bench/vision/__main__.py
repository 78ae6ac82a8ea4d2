"""`make bench-vision [DATA=folder]`: quality and cost of the lite set's models beside the reference libraries.

Without DATA the samples are rendered, the same for the same seed. With it, the public data sets that are found below
that folder are read. Each role's module gives its keys; they are merged into bench/results/vision.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

# As in the services, before numpy is imported: OpenBLAS' threads would spin while the models answer, and be counted.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from bench.vision import datasets, faces, logos, ocr, retrieval, samples
from bench.vision.engines import Ours, bench_python, serving

RESULTS = Path(__file__).resolve().parents[1] / "results" / "vision.json"
SEED = 1
# In the order of the samples.
ROLES: tuple[Any, ...] = (ocr, faces, logos, retrieval)


def measure(ours: Ours, found: samples.Samples, source: str) -> dict[str, Any]:
    """The keys of every role that has samples, and what they were measured on.

    A further role gets its place here and among ROLES.
    """
    keys: dict[str, Any] = {}
    inputs: tuple[list[Any], ...] = ([found.texts], [found.faces], [found.logos, found.crops], [found.photos])
    for role, given in zip(ROLES, inputs, strict=True):
        if given[0]:
            keys |= role.measure(ours, *given) | {f"{role.__name__.rpartition('.')[2]}_source": source}
            print("\n".join(role.report(keys)), flush=True)
    return keys


def rendered(folder: Path, seed: int) -> samples.Samples:
    """The samples that the bench makes itself."""
    bench_python("bench.vision.render", str(folder), str(seed), str(logos.icons()))
    return samples.read(folder / "samples.json")


def merge(keys: dict[str, Any], path: Path) -> None:
    """Writes the keys beside those that are there: other roles may have been measured in another run."""
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | keys, indent=2) + "\n")


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.vision", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of public data sets; rendered samples where left out")
    parser.add_argument("--seed", type=int, default=SEED, help="of the rendered samples")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lensmesh-bench-") as folder:
        found = datasets.read(given.data) if given.data else rendered(Path(folder), given.seed)
        if given.data:
            counts = f"{len(found.texts)} images of text, {len(found.faces)} of faces, {len(found.logos)} of logos"
            print(f"{given.data}: {counts}, {len(found.photos)} photos with captions")
            print("read are ICDAR 2015, WIDER FACE, FDDB, FlickrLogos-27 and Flickr8k; no other")
        if found == samples.Samples():
            print("error: no data set that is read here was found", file=sys.stderr)
            return 1
        with serving([model for role in ROLES for model in role.MODELS]) as ours:
            source = "public data sets" if given.data else f"rendered, seed {given.seed}"
            keys = measure(ours, found, source)
    keys["machine"] = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    merge(keys, RESULTS)
    print(f"written to {RESULTS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
