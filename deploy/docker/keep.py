"""Leaves in a model repository what one set needs: an image of Triton loads every model that it finds.

``python -m deploy.docker.keep --set lite``, after the weights were fetched; run where the image is built.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from runner.canary import role_models
from runner.triton import TritonUnavailable, with_inner_models

_MODELS = Path(__file__).resolve().parents[2] / "models"


def keep(models_dir: Path, set_name: str) -> list[str]:
    """Removes the other models below ``models_dir``/repository; returns those that stay. Raises TritonUnavailable."""
    model_set = json.loads((models_dir / "sets" / f"{set_name}.json").read_text())
    repository = models_dir / model_set["repository"]
    kept = with_inner_models(repository, role_models(model_set))
    for config in list(repository.glob("*/config.pbtxt")):
        if config.parent.name not in kept:
            shutil.rmtree(config.parent)
    return list(kept)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.docker.keep", description=__doc__)
    parser.add_argument("--set", required=True, help="a name in models/sets")
    try:
        kept = keep(_MODELS, parser.parse_args(arguments).set)
    except TritonUnavailable as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{len(kept)} models stay: {', '.join(kept)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
