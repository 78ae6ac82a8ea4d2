"""Runs the vision service: python -m services.vision."""

import os

# Before numpy is imported: OpenBLAS' threads would spin for longer than a gallery's product takes.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from services.mesh.service import main
from services.vision.server import build

if __name__ == "__main__":
    main("vision", build)
