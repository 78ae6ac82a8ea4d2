"""Runs the embedder: python -m services.embedder."""

from services.embedder.server import build
from services.mesh.service import main

if __name__ == "__main__":
    main("embedder", build)
