"""Runs the percolator: python -m services.percolator."""

from services.mesh.service import main
from services.percolator.server import build

if __name__ == "__main__":
    main("percolator", build)
