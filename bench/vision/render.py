"""Renders the samples: ``python -m bench.vision.render FOLDER SEED``, in the bench environment."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.vision import render_faces, render_text, samples


def main() -> None:
    """Writes images and ``samples.json`` into the folder."""
    folder, seed = Path(sys.argv[1]), int(sys.argv[2])
    made = samples.Samples(render_text.render(folder, seed), render_faces.render(folder, seed))
    samples.write(made, folder / "samples.json")


if __name__ == "__main__":
    main()
