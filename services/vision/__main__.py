"""Runs the vision service: python -m services.vision."""

from services.mesh.service import main
from services.vision.server import build

if __name__ == "__main__":
    main("vision", build)
