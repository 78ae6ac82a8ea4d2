"""Writes the tiny networks as a hub would hold them. Run with the Triton environment."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from models import standard
from models.tiny.captioner import captioner
from models.tiny.encoders import joint, sentences


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m models.tiny", description=__doc__)
    parser.add_argument("--out", required=True, type=Path, help="the folder, one below it for each repository")
    out: Path = parser.parse_args(arguments).out
    joint(out / standard.JOINT)
    captioner(out / standard.CAPTIONER)
    sentences(out / standard.SENTENCES / "onnx")
    files = [path for path in out.rglob("*") if path.is_file()]
    print(f"{len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
