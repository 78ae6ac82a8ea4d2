"""Writes the hashed requirements of every image, at the versions that requirements/ has already settled on.

Run `python -m deploy.docker.lock` after requirements/ or pyproject.toml changed; it needs uv on the PATH.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "deploy" / "docker" / "requirements"
SERVICES = ("gateway", "vision", "embedder", "percolator")


def lock(name: str, python: str, settled: str, sources: list[str]) -> None:
    """Resolve one image's requirements, never to another version than the settled one. Comments go: they hold paths."""
    command = ["uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-annotate", "--no-header"]
    command += [f"--python-version={python}", f"--constraints=requirements/{settled}"]
    command += [f"--output-file={REQUIREMENTS / name}.txt", *sources]
    subprocess.run(command, cwd=ROOT, check=True)


def main() -> None:
    """Lock the services, the compiler of the stubs, and what Triton's Python models import."""
    for service in SERVICES:
        lock(service, "3.11", "lensmesh.txt", ["pyproject.toml", f"--extra={service}"])
    lock("stubs", "3.11", "lensmesh.txt", [f"{REQUIREMENTS}/stubs.in"])
    lock("triton", "3.12", "triton.txt", [f"{REQUIREMENTS}/triton.in"])


if __name__ == "__main__":
    main()
