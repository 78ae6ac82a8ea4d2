"""Renders the samples: ``python -m bench.vision.render FOLDER SEED ICONS``, in the bench environment."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.vision import render_faces, render_logos, render_photos, render_text, samples


def main() -> None:
    """Writes images and ``samples.json`` into the folder."""
    folder, seed, icons = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    made = samples.Samples(
        render_text.render(folder, seed),
        render_faces.render(folder, seed),
        render_logos.render(folder, seed, icons),
        render_photos.render(folder),
    )
    samples.write(made, folder / "samples.json")


if __name__ == "__main__":
    main()
