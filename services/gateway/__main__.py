"""Runs the gateway: python -m services.gateway."""

from services.gateway.server import build
from services.mesh.service import main

if __name__ == "__main__":
    main("gateway", build)
